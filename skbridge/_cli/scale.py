"""Commands for collections that take many processes: ``embed``, ``predict --ray``."""

from skbridge._cli import output
from skbridge._cli.arguments import add_command, count, positive, verbose
from skbridge._messages import brief

_EMBED_EXAMPLES = """\
A source is a folder, a pattern in quotes, or a URL; of images, of tar archives, or of
Parquet files with images. The output is a folder of Parquet files. If a run is
killed, the same command continues it.

examples:
  skbridge embed photos/ -o embeddings/ --actors 4
  skbridge embed 'shards/*.tar' -o embeddings/ --float16
  skbridge embed s3://bucket/images -o embeddings/
  skbridge predict model.skb embeddings/ --ray -o labels/
"""


def add_parser(commands):
    """Declare ``skbridge embed`` and its arguments."""
    embed = add_command(
        commands, "embed", run_embed, "embed a large collection", has_cache=False
    )
    embed.epilog = _EMBED_EXAMPLES
    embed.add_argument(
        "source", nargs="+", help="folder, pattern or URL of images, .tar or .parquet"
    )
    embed.add_argument("-o", "--output", required=True, help="folder to write")
    embed.add_argument(
        "--model", default="ViT-B-16", help="CLIP model (default: %(default)s)"
    )
    embed.add_argument(
        "--precision",
        default="auto",
        choices=["auto", "fp32", "bf16", "fp16"],
        help="of the image tower (default: %(default)s)",
    )
    embed.add_argument("--column", help="column of Parquet files with the images")
    embed.add_argument(
        "--shard-size",
        type=positive,
        default=10_000,
        metavar="N",
        help="images per file (default: %(default)s)",
    )
    embed.add_argument(
        "--float16", action="store_true", help="write half the bytes per embedding"
    )
    add_actors(embed)


def add_actors(parser):
    """Declare the number of processes."""
    parser.add_argument(
        "--actors",
        type=count,
        metavar="N",
        help="processes that Ray starts; 0 is this one, without Ray (default: one per "
        "GPU or, without one, one per machine)",
    )


def run_embed(options):
    """``skbridge embed``."""
    from skbridge._embedder import CLIPEmbedder
    from skbridge.scale import embed_dataset, iter_embeddings

    source = options.source if len(options.source) > 1 else options.source[0]
    embedder = CLIPEmbedder(
        options.model, device=options.device, precision=options.precision
    )
    run = embed_dataset(
        source,
        embedder,
        options.output,
        column=options.column,
        n_actors=options.actors,
        shard_size=options.shard_size,
        dtype="float16" if options.float16 else "float32",
        verbose=verbose(),
    )
    n_images, unreadable = 0, {}
    for shard in iter_embeddings(run):
        n_images += len(shard.paths)
        unreadable |= shard.unreadable
    print(f"{output.count(n_images, 'embedding')} in {output.printable(run)}")
    if unreadable:
        path, why = next(iter(unreadable.items()))
        output.tell(
            f"warning: {output.count(len(unreadable), 'image')} cannot be read; the "
            f"column error says why. The first is {brief(path)}: {why}"
        )


def run_predict(options):
    """``skbridge predict --ray``."""
    from skbridge.scale import predict_dataset

    if len(options.sources) != 1 or options.output is None:
        raise ValueError(
            "--ray takes one folder of skbridge embed and -o, the folder to write."
        )
    run = predict_dataset(
        options.model,
        options.sources[0],
        options.output,
        n_actors=options.actors,
        verbose=verbose(),
    )
    print(f"labels in {output.printable(run)}")
