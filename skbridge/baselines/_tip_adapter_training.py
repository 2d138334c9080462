"""Tip-Adapter-F: the cache's keys learned from the shots. Torch inside."""

import numpy as np
import torch
from sklearn.utils import check_random_state


def train_keys(
    X,
    codes,
    sample_weight,
    text_logits,
    *,
    alpha,
    beta,
    learning_rate,
    n_epochs,
    batch_size,
    random_state,
    device,
):
    """Fine-tune the keys of the cache on the cross entropy of the shots.

    Parameters
    ----------
    X : ndarray of shape (n_shots, n_features)
        Unit shots; the keys start from them.
    codes : ndarray of shape (n_shots,)
        Class of each shot, 0 to n_classes - 1.
    sample_weight : ndarray of shape (n_shots,)
        Positive weights.
    text_logits : ndarray of shape (n_shots, n_classes) or None
        Logits of the shots by the texts.
    alpha, beta : float
        Weight and sharpness of the cache.
    learning_rate : float
        First step size; it falls to zero along a cosine.
    n_epochs, batch_size : int
        Number of passes over the shots, and of shots per step.
    random_state : int, RandomState instance or None
        Order of the shots; not used if one batch has them all.
    device : str
        Where to train.

    Returns
    -------
    keys : ndarray of shape (n_shots, n_features)
    loss_curve : ndarray of shape (n_steps,)
        Loss of each batch before its step.
    """

    def tensor(array):
        return torch.from_numpy(np.array(array, dtype=X.dtype)).to(device)

    n_shots, n_classes = len(X), int(codes.max()) + 1
    one_batch = n_shots <= batch_size
    random_state = check_random_state(random_state)
    shots, weight = tensor(X), tensor(sample_weight)
    labels = torch.from_numpy(codes).to(device)
    values = tensor(np.eye(n_classes)[codes] * sample_weight[:, None])
    texts = 0 if text_logits is None else tensor(text_logits)
    keys = tensor(X).requires_grad_()
    optimizer = torch.optim.AdamW([keys], lr=learning_rate, eps=1e-4)
    n_batches = -(-n_shots // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, n_epochs * n_batches
    )
    losses = []
    for _ in range(n_epochs):
        order = np.arange(n_shots) if one_batch else random_state.permutation(n_shots)
        for rows in np.array_split(order, n_batches):
            rows = torch.from_numpy(rows).to(device)
            near = torch.exp(beta * (shots[rows] @ keys.T - 1))
            logits = alpha * (near @ values)
            if text_logits is not None:
                logits = logits + texts[rows]
            each = torch.nn.functional.cross_entropy(
                logits, labels[rows], reduction="none"
            )
            loss = weight[rows] @ each / weight[rows].sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            # A shot of weight 2 is one key with the gradient of two. Dividing gives
            # the gradient of one, so that AdamW, whose eps depends on the scale, treats
            # weight and repetition alike.
            keys.grad /= weight[:, None]
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
    return keys.detach().cpu().numpy(), torch.stack(losses).cpu().numpy()
