"""Images: the forms in which they come, and how they become pixels.

===========  ====================================================================
`accept`     which sequences and items are images, and what each is called
`limits`     how much memory one image may take, whatever its file says
`formats`    which formats of files are read, and the packages that some need
`decode`     one image of any form, as upright 8-bit RGB over white
`batches`    many images, decoded ahead in threads, in bounded memory
`augment`    `augment_shots`: crops and flips of shots
===========  ====================================================================

Imports run from the bottom of this table to its top. Nothing here knows of models or
labels; the layers from `_clip` upwards may import it, and `augment_shots` is public.
It imports `_messages`, and no torch.
"""
