"""SeMoBridge-T: the bridge learned from the shots. Torch inside, arrays outside."""

from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch.linalg import vector_norm

from skbridge._bridge import Bridge
from skbridge._held_out.folds import shot_folds
from skbridge._rows import unit
from skbridge._training.early_stopping import distinct_shots, held_out_losses

# Rows shorter than this have no direction; torch's own normalize has the same.
_SHORTEST = 1e-12
# Directions in which the shots spread less than this share of their most count as if
# they spread so much.
_LEAST_SPREAD = 1e-3
# A turn of the parameters into the tokens' own basis pays for itself with more
# shots than this times the width.
_TURN_PAYS = 2
# Weighted sums of the rows u, a sum a class, taken from those of the shots and of their
# classes, pay for themselves with more shots than this times the rows of W+ and b.
_SUMS_PAY = 3

# On a GPU, the first steps of a descent are launched kernel by kernel, so that all
# that is made on first use is there; if it has so many steps, a CUDA graph of a step
# is worth its making.
_EAGER_STEPS = 3
_CAPTURE_PAYS = 200

# Early stopping asks held-out shots about points so many steps apart, up to so many
# steps, in so many folds. benchmarks/constants.py shows what shots alone say of these:
# four folds gain 0.1 points, for twice the time.
_STEPS_APART = 4
_MAX_STEPS = 60
_N_FOLDS = 2
# With texts the held-out loss has one valley. Without, it often rises at first and
# falls again later.
_PATIENCE_WITH_TEXTS = 5
# Where every class has one shot there is nobody to ask. Texts hold the steps on
# course; without them no number of steps did any good.
_STEPS_OF_SINGLE_SHOTS = 56


@dataclass(frozen=True)
class Schedule:
    """Rates and number of steps.

    Attributes
    ----------
    learning_rate : float
        After the warm-up.
    warmup : int
        Steps over which the rate grows linearly to that.
    first_rate : float
        The first step's rate, if that is lower.
    max_iter : int
        Number of steps.
    tol : float
        Stop after the warm-up once a window of steps lowers the loss by no more
        than this share of it; 0 takes all the steps.
    tol_window : int
        Losses of single steps are noisy; progress is judged over so many.
    """

    learning_rate: float
    warmup: int
    first_rate: float
    max_iter: int
    tol: float
    tol_window: int

    def rate(self, step):
        """Rate of one step."""
        if step == 0:
            return min(self.first_rate, self.learning_rate)
        return self.learning_rate * min(step / self.warmup, 1.0)


# The official recipe; and ten of its steps in one, to be stopped early, with L-BFGS
# where the whole way is to be gone.
SCHEDULES = {
    "adamw": Schedule(1.5e-4, 500, 1e-5, 5000, 0.0, 50),
    "fast": Schedule(1.5e-3, 50, 1e-4, 250, 1e-5, 10),
}


@dataclass(frozen=True)
class Shots:
    """Shots and where they belong.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features)
        Their dtype is the dtype of the whole computation.
    codes : ndarray of shape (n_samples,)
        Class of each, 0 to n_classes - 1; no class is without shots.
    weight : ndarray of shape (n_samples,)
        Positive weights.
    """

    X: np.ndarray
    codes: np.ndarray
    weight: np.ndarray

    def take(self, rows):
        """Shots of some rows."""
        return Shots(self.X[rows], self.codes[rows], self.weight[rows])


@dataclass(frozen=True)
class Task:
    """What is to be learned from shots, and how.

    Attributes
    ----------
    bridge : Bridge
        The closed form, from which training starts.
    text_features : ndarray of shape (n_classes, n_features) or None
        Class texts T; None drops the text losses.
    csb : bool
        Whether to learn b.
    logit_scale, lambda_it, lambda_c, lambda_b : float
        Constants of the loss.
    solver : {"adamw", "fast"}
    schedule : Schedule
    weight_decay : float
        Decoupled decay of W+ and b alike.
    device : str
        A torch device.
    """

    bridge: Bridge
    text_features: np.ndarray | None
    csb: bool
    logit_scale: float
    lambda_it: float
    lambda_c: float
    lambda_b: float
    solver: str
    schedule: Schedule
    weight_decay: float
    device: str

    @cached_property
    def projection(self):
        """W, a tensor in float64. In torch, as all of training: see `scores_along`."""
        return torch.from_numpy(self.bridge.projection.astype(np.float64))

    @cached_property
    def token_axes(self):
        """Eigenvalues and eigenvectors U of W W', and U' W; every fold has the same."""
        eigenvalues, axes = torch.linalg.eigh(self.projection @ self.projection.T)
        return eigenvalues, axes, axes.T @ self.projection


@dataclass(frozen=True)
class TrainedBridge:
    """What training returns.

    Attributes
    ----------
    inverse : ndarray of shape (n_features, n_text_features)
        Learned W+.
    class_bias : ndarray of shape (n_classes, n_text_features)
        Learned b; zeros without class-specific bias.
    loss_curve : ndarray of shape (n_steps,)
        Loss before each step.
    loss_terms : dict of str to ndarray of shape (n_steps,)
        Its terms, before their weights.
    """

    inverse: np.ndarray
    class_bias: np.ndarray
    loss_curve: np.ndarray
    loss_terms: dict


def _lengths(rows, keepdim=False):
    return vector_norm(rows, dim=1, keepdim=keepdim).clamp_min_(_SHORTEST)


def _dots(a, b):
    return (a * b).sum(dim=1)


class Objective:
    """The loss of SeMoBridge-T and its gradient, as a function of W+ and b.

    The gradient is written out. That spares half of what automatic differentiation
    does, and every array with a row a shot has its place once for all steps.

    Shots enter by ``u = (f - c) W+ + b`` alone, of which the consistency loss needs
    the length of ``u W``. With ``W W' = U diag(g) U'`` and ``u' = u U`` its square is
    ``sum_t g_t u'_t^2``: in the basis U of the tokens that takes no product.

    Parameters
    ----------
    shots : Shots
    task : Task
    rotate : bool
        Whether parameters and gradient are those of ``W+ U`` and ``b U``.

    Attributes
    ----------
    names : tuple of str
        Terms of the loss.
    weights : tensor of shape (n_terms,)
        Their weights.
    rotation : tensor of shape (n_text_features, n_text_features) or None
        U; None without rotation.
    """

    def __init__(self, shots, task, *, rotate):
        self.dtype, self.device = shots.X.dtype, task.device
        self.task, codes = task, shots.codes
        self.n_features, self.n_classes = shots.X.shape[1], int(codes.max()) + 1
        self.codes = torch.from_numpy(codes).to(self.device)
        total = shots.weight.sum()
        class_count = np.bincount(codes, weights=shots.weight)
        self.share = self.tensor(shots.weight / total)
        self.share_of_class = self.tensor(shots.weight / class_count[codes])[:, None]
        self.consistency_share = task.lambda_c * self.share[:, None]
        # The logits of the image loss are products with the first, their gradient
        # is one with the second.
        X_scaled = task.logit_scale * unit(shots.X)
        self.X_scaled = self.tensor(X_scaled)
        X_share = task.lambda_it * shots.weight[:, None] / total * X_scaled
        self.X_share = self.tensor(X_share)
        self.class_share = self._class_sums(self.X_share)

        bridge = task.bridge
        W, eos_unit = task.projection, bridge.eos_unit
        if rotate:
            gram, rotation, W = task.token_axes
            self.rotation = self.tensor(rotation)
            if eos_unit is not None:
                eos_unit = torch.from_numpy(eos_unit.astype(np.float64)) @ rotation
        else:
            self.rotation, gram = None, W @ W.T
        self.projection, self.gram = self.tensor(W), self.tensor(gram)
        self.length, self.bias = bridge.length, None
        centred = shots.X
        if bridge.bias is not None:
            centred = shots.X - bridge.bias
            self.bias = self.tensor(bridge.bias)
            self.projected_bias = self.projection @ self.bias
            self.bias_square = float(bridge.bias @ bridge.bias)
        self.centred = self.tensor(centred)
        self.texts = {}
        if task.text_features is not None:
            self.texts = {
                "text_eos": self.tensor(eos_unit),
                "text_joint": self.tensor(task.text_features),
            }
        text = (1 - task.lambda_it) / 2
        weights = {"image": task.lambda_it}
        weights |= dict.fromkeys(self.texts, text)
        weights["consistency"] = task.lambda_c
        if task.csb:
            weights["bias"] = task.lambda_b
        self.names, self.weights = tuple(weights), self.tensor(list(weights.values()))

        n_rows = self.n_features + self.n_classes * task.csb
        self.sums_first = len(codes) > _SUMS_PAY * n_rows
        self._gradient = self.centred.new_empty(n_rows, len(W))
        by_token, by_class = (len(codes), len(W)), (len(codes), self.n_classes)
        self._by_token = [self.centred.new_empty(by_token) for _ in range(3)]
        self._by_class = [self.centred.new_empty(by_class) for _ in range(2)]

    def tensor(self, values):
        """Put values where the computation is; rows lie in a row."""
        if isinstance(values, torch.Tensor):
            values = values.numpy()
        values = np.array(values, dtype=self.dtype, order="C")
        return torch.from_numpy(values).to(self.device)

    def start(self):
        """W+ of the closed form and, with class-specific bias, b = 0 below it."""
        rows = torch.zeros_like(self._gradient)
        rows[: self.n_features] = self.tensor(self.task.bridge.inverse)
        return rows if self.rotation is None else rows @ self.rotation

    def _split(self, rows):
        """W+, and b if there is any."""
        return rows[: self.n_features], rows[self.n_features :]

    def _class_sums(self, rows):
        sums = rows.new_zeros(self.n_classes, rows.shape[1])
        return sums.index_add_(0, self.codes, rows)

    def _by_gram(self, rows):
        return rows @ self.gram if self.rotation is None else rows * self.gram

    def _text_loss(self, name, rows):
        """Cross entropy of class vectors and texts, and its gradient in `rows`."""
        lengths = _lengths(rows, keepdim=True)
        directions, texts = rows / lengths, self.texts[name]
        p = torch.log_softmax(directions @ texts.T, dim=1)
        loss = -p.diagonal().mean()
        p.exp_().diagonal().sub_(1)
        weight = (1 - self.task.lambda_it) / 2 / self.n_classes
        gradient = (p @ texts).mul_(weight)
        # Only what turns a row matters.
        along = _dots(gradient, directions)[:, None]
        return loss, gradient.addcmul_(along, directions, value=-1).div_(lengths)

    def _bridge_shots(self, rows):
        """Set the rows u; give alpha, of tokens alpha u, and class means of e^, f^."""
        u, _, spare = self._by_token
        inverse, class_bias = self._split(rows)
        if self.task.csb:
            torch.index_select(class_bias, 0, self.codes, out=u)
            u.addmm_(self.centred, inverse)
        else:
            torch.mm(self.centred, inverse, out=u)
        alpha = self.length / _lengths(u, keepdim=True)
        means = self._class_sums(torch.mul(u, alpha * self.share_of_class, out=spare))
        # The projection is affine: the mean of f^ is the projected mean of e^.
        joint = means @ self.projection
        return alpha, means, joint if self.bias is None else joint.add_(self.bias)

    def prototypes(self, rows):
        """Bridged prototypes F^, a tensor of shape (n_classes, n_features)."""
        *_, joint = self._bridge_shots(rows)
        return joint / _lengths(joint, keepdim=True)

    def __call__(self, rows):
        """Terms of the loss, and the gradient of their weighted sum.

        Nothing here waits for values, or depends on them: the kernels of one call,
        run again on the same memory, are another call.

        Parameters
        ----------
        rows : tensor of shape (n_features [+ n_classes], n_text_features)
            W+ and, with class-specific bias, b below it.

        Returns
        -------
        terms : tensor of shape (n_terms,)
            Before their weights.
        gradient : tensor
            In `rows`; the next call overwrites it.
        """
        own = self.codes[:, None]
        inverse, class_bias = self._split(rows)
        u, gradient, spare = self._by_token
        p, q = self._by_class

        alpha, means, joint = self._bridge_shots(rows)
        # u G u', G = W W'.
        if self.rotation is None:
            in_gram = u @ self.gram
            square = torch.mul(u, in_gram, out=spare).sum(1, keepdim=True)
        else:
            square = torch.mul(u, u, out=spare) @ self.gram[:, None]
        length = alpha.square() * square
        if self.bias is not None:
            projected = (u @ self.projected_bias)[:, None]
            length += 2 * alpha * projected + self.bias_square
        # Of f^.
        length.clamp_min_(_SHORTEST**2).sqrt_()
        joint_lengths = _lengths(joint, keepdim=True)
        prototypes = joint / joint_lengths
        # Prototypes W'.
        in_tokens = self._by_gram(means)
        if self.bias is not None:
            in_tokens += self.projected_bias
        in_tokens /= joint_lengths

        torch.mm(self.X_scaled, prototypes.T, out=q)
        torch.log_softmax(q, dim=1, out=p)
        terms = [-(self.share @ p.gather(1, own)[:, 0])]
        in_prototypes = (p.exp_().T @ self.X_share).sub_(self.class_share)

        cosines = torch.mm(u, in_tokens.T, out=p)
        cosines *= alpha / length
        if self.bias is not None:
            of_bias = prototypes @ self.bias
            cosines += of_bias / length
        torch.softmax(cosines, dim=1, out=q)
        of_own = cosines.gather(1, own)
        consistency = -(self.share @ q.gather(1, own)[:, 0].log_())
        step = self.consistency_share * alpha / length
        torch.mul(q, cosines, out=p)
        shrink = (p.sum(1, keepdim=True) - of_own).mul_(step).div_(length)
        q *= step
        q.scatter_add_(1, own, -step)
        # This adds (q' u) W to the gradient in prototypes, whose products with W' and
        # with the prototypes are all that is needed of it. As u = (f - c) W+ + b, the
        # sums q' (f - c) give q' u, and the gradient in W+ below needs them as well.
        if self.sums_first:
            shot_sums = q.T @ self.centred
            through_tokens = shot_sums @ inverse
            if self.task.csb:
                class_sums = self._class_sums(q)
                through_tokens.addmm_(class_sums.T, class_bias)
        else:
            through_tokens = q.T @ u
        if self.bias is not None:
            in_prototypes += (q.T @ alpha.reciprocal()) * self.bias
        along = _dots(in_prototypes, prototypes) + _dots(through_tokens, in_tokens)
        in_means = self._by_gram(through_tokens)
        in_means.addcmul_(along[:, None], in_tokens, value=-1).div_(joint_lengths)
        in_joint = in_prototypes.div_(joint_lengths)
        if self.texts:
            of_eos, in_eos = self._text_loss("text_eos", means)
            of_joint, from_texts = self._text_loss("text_joint", joint)
            terms += [of_eos, of_joint]
            in_means += in_eos
            in_joint += from_texts
        in_means.addmm_(in_joint, self.projection.T)
        terms.append(consistency)

        torch.index_select(in_means, 0, self.codes, out=gradient)
        gradient *= alpha * self.share_of_class
        # Along u, what the consistency loss wants of the cosines and of the length
        # cancels but for the bias.
        along = torch.mul(gradient, u, out=spare).sum(1, keepdim=True)
        if self.bias is not None:
            along += shrink * projected
            along += (shrink * self.bias_square - q @ of_bias[:, None]) / alpha
            gradient -= shrink * self.projected_bias
        along *= (alpha / self.length).square_()
        if not self.sums_first:
            gradient.addmm_(q, in_tokens)
        shrink *= alpha
        if self.rotation is None:
            gradient.addcmul_(in_gram, shrink, value=-1).addcmul_(u, along, value=-1)
        else:
            torch.mul(shrink, self.gram, out=spare).add_(along)
            gradient.addcmul_(u, spare, value=-1)
        in_inverse, in_bias = self._split(self._gradient)
        torch.mm(self.centred.T, gradient, out=in_inverse)
        if self.sums_first:
            in_inverse.addmm_(shot_sums.T, in_tokens)
        if self.task.csb:
            norms = vector_norm(class_bias, dim=1, keepdim=True)
            excess = norms - norms.mean()
            terms.append(excess.square().mean())
            excess *= 2 * self.task.lambda_b / self.n_classes
            # The gradient of ||b|| at 0 is 0.
            torch.mul(class_bias, excess / norms.clamp_min_(_SHORTEST), out=in_bias)
            in_bias.index_add_(0, self.codes, gradient)
            if self.sums_first:
                in_bias.addmm_(class_sums, in_tokens)
        return torch.stack(terms), self._gradient


def _settled(before, after, schedule):
    return schedule.tol > 0 and before - after <= schedule.tol * abs(before)


def _result(objective, rows, terms):
    rows = rows.cpu().numpy()
    inverse, bias = np.split(rows, [objective.n_features])
    if not len(bias):
        bias = np.zeros((objective.n_classes, rows.shape[1]), rows.dtype)
    curve = (terms @ objective.weights).cpu().numpy()
    terms = dict(zip(objective.names, terms.T.cpu().numpy(), strict=True))
    return TrainedBridge(inverse, bias, curve, terms)


def _minimise(shots, task):
    """Follow L-BFGS to where the loss settles.

    It goes by ``Z = D V' (W+ - W+_0) U`` with the singular values D and the right
    singular vectors V of the shots: in Z all directions of the shots weigh alike,
    which takes several times fewer steps than in W+.
    """
    objective = Objective(shots, task, rotate=True)
    start, n_features = objective.start(), objective.n_features
    weight = np.sqrt(shots.weight / shots.weight.sum())[:, None]
    centred = shots.X if task.bridge.bias is None else shots.X - task.bridge.bias
    _, d, Vt = np.linalg.svd(weight * centred.astype(np.float64), full_matrices=False)
    scale = objective.tensor(Vt.T / np.maximum(d, _LEAST_SPREAD * d[0]))
    # One b serves the share 1 / n_classes of the shots.
    b_scale = objective.n_classes**0.5
    variables = start.new_zeros(len(start) - n_features + scale.shape[1], len(start.T))
    n_axes = scale.shape[1]
    schedule = task.schedule
    optimizer = torch.optim.LBFGS(
        [variables],
        max_iter=schedule.tol_window,
        history_size=10,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def rows():
        moved = torch.cat([scale @ variables[:n_axes], b_scale * variables[n_axes:]])
        return moved.add_(start)

    losses, history = [], []

    def evaluate():
        terms, gradient = objective(rows())
        variables.grad = torch.cat(
            [scale.T @ gradient[:n_features], b_scale * gradient[n_features:]]
        )
        history.append(terms.tolist())
        losses.append(float(terms @ objective.weights))
        return losses[-1]

    window = schedule.tol_window
    while len(losses) < schedule.max_iter:
        optimizer.step(evaluate)
        if len(losses) > window and _settled(losses[-1 - window], losses[-1], schedule):
            break
    turned = rows() @ objective.rotation.T
    return _result(objective, turned, objective.tensor(history))


def _is_gpu(device):
    return torch.device(device).type == "cuda"


class _Descent:
    """AdamW on the objective of some shots, from the closed form and b = 0."""

    def __init__(self, shots, task):
        self.schedule = task.schedule
        # AdamW's steps are not the same in another basis; the recipe's is W+'s own.
        # There a turn into the tokens' and back may pay all the same.
        self.is_official = task.solver == "adamw"
        width = max(task.bridge.inverse.shape)
        rotate = not self.is_official or len(shots.X) > _TURN_PAYS * width
        self.objective = Objective(shots, task, rotate=rotate)
        self.rows = self.parameters = self.objective.start()
        if self.is_official and rotate:
            self.parameters = self.rows @ self.objective.rotation.T
            self.parameters.grad = torch.empty_like(self.rows)
        rate = self.schedule.learning_rate
        self.is_on_gpu = _is_gpu(task.device)
        self.optimizer = torch.optim.AdamW(
            [self.parameters],
            # What a CUDA graph reads lies on the GPU.
            lr=torch.tensor(rate, device=task.device) if self.is_on_gpu else rate,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=task.weight_decay,
            fused=True,
            capturable=self.is_on_gpu,
        )
        # In one place: tensors of a few floats, kept between large ones that go, would
        # keep the memory of these.
        n_terms = len(self.objective.names)
        self.history = self.rows.new_empty(self.schedule.max_iter, n_terms)
        self.n_steps = 0

    def _turn(self):
        """Put the parameters into the objective's basis."""
        if self.parameters is not self.rows:
            torch.mm(self.parameters, self.objective.rotation, out=self.rows)

    def _update(self):
        self._turn()
        terms, gradient = self.objective(self.rows)
        if self.parameters is self.rows:
            self.parameters.grad = gradient
        else:
            rotation = self.objective.rotation
            torch.mm(gradient, rotation.T, out=self.parameters.grad)
        self.optimizer.step()
        return terms

    def _capture(self):
        """Make a CUDA graph of an update: one launch in place of over a hundred."""
        graph, device = torch.cuda.CUDAGraph(), self.rows.device
        capture = torch.cuda.graph(
            graph,
            # torch's own stream for this may be on another GPU.
            stream=torch.cuda.Stream(device),
            # Other threads may use the GPU meanwhile.
            capture_error_mode="thread_local",
        )
        with torch.cuda.device(device), capture:
            terms = self._update()

        def replay():
            graph.replay()
            return terms

        self._update = replay

    def step(self):
        """Take one step."""
        rate = self.schedule.rate(self.n_steps)
        group = self.optimizer.param_groups[0]
        if self.is_on_gpu:
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
        self.history[self.n_steps] = self._update()
        self.n_steps += 1

    def _loss(self, n_steps_ago):
        terms = self.history[self.n_steps - 1 - n_steps_ago]
        return float(terms @ self.objective.weights)

    def descend(self, n_steps):
        """Take so many steps, or fewer if the loss settles; give the result."""
        schedule, window = self.schedule, self.schedule.tol_window
        for step in range(n_steps):
            if self.is_on_gpu and step == _EAGER_STEPS and n_steps >= _CAPTURE_PAYS:
                self._capture()
            self.step()
            # During the warm-up a small change says nothing about convergence.
            due = schedule.tol and step >= schedule.warmup and step % window == 0
            if due and _settled(self._loss(window), self._loss(0), schedule):
                break
        parameters = self.parameters
        if not self.is_official:
            parameters = parameters @ self.objective.rotation.T
        return _result(self.objective, parameters, self.history[: self.n_steps])

    def scores_along(self, held_out, lambda_3):
        """Blended scores of held-out shots, after every few steps.

        All in torch: the threads of NumPy's products and those of torch's, in turns,
        would wait for each other most of the time.
        """
        query = self.objective.tensor(unit(held_out.X))
        texts = self.objective.texts.get("text_joint")
        z1 = 0.0 if texts is None else query @ texts.T
        while True:
            self._turn()
            prototypes = self.objective.prototypes(self.rows)
            yield (z1 + lambda_3 * (query @ prototypes.T)).cpu().numpy()
            for _ in range(_STEPS_APART):
                self.step()


def _choose_steps(shots, task, lambda_3, temperature):
    """Of 0, 4, ..., 60 steps those of the least log loss of held-out shots."""
    shots = Shots(*distinct_shots(shots.X, shots.codes, shots.weight))
    folds = shot_folds(shots.codes, n_splits=_N_FOLDS, random_state=0)
    most = min(_MAX_STEPS, task.schedule.max_iter)
    if not folds:
        return 0 if task.text_features is None else min(_STEPS_OF_SINGLE_SHOTS, most)
    paths, tests = [], [shots.take(test) for _, test in folds]
    for (train, _), held_out in zip(folds, tests, strict=True):
        training = shots.take(train)
        weight = lambda_3(np.bincount(training.codes, weights=training.weight))
        path = _Descent(training, task).scores_along(held_out, weight)
        paths.append(islice(path, most // _STEPS_APART + 1))
    codes, weights = [t.codes for t in tests], [t.weight for t in tests]
    patience = np.inf if task.text_features is None else _PATIENCE_WITH_TEXTS
    losses, weight = held_out_losses(
        paths, codes, weights, temperature, patience=patience
    )
    return _STEPS_APART * int(np.argmin(losses @ weight))


def train_bridge(shots, task, *, early_stopping=None):
    """Learn W+ and the class-specific bias from the shots, full batch.

    Minimises ``lambda_it L_img + (1 - lambda_it) (L_txte + L_txtp) / 2 +
    lambda_c L_cons + lambda_b L_bias`` (the paper's multi-modal losses), from
    the closed form's W+ and ``b = 0``.

    Parameters
    ----------
    shots : Shots
    task : Task
    early_stopping : tuple of (callable, float), default=None
        None takes all the steps. Otherwise as many as held-out shots want: the
        weight of z3 beside z1 from the counts of the classes, and the default
        temperature of such scores.

    Returns
    -------
    TrainedBridge or None
        None for no steps.

    Raises
    ------
    ValueError
        If the loss becomes infinite or NaN.
    """
    n_steps = task.schedule.max_iter
    if early_stopping is not None:
        n_steps = _choose_steps(shots, task, *early_stopping)
    if n_steps == 0:
        return None
    if task.solver == "fast" and early_stopping is None:
        result = _minimise(shots, task)
        remedy = "Lower lambda_it, lambda_c and lambda_b, or train with early_stopping"
    else:
        result = _Descent(shots, task).descend(n_steps)
        remedy = f"Lower learning_rate (now {task.schedule.learning_rate!r})"
    curve = result.loss_curve
    if not np.isfinite(curve).all():
        step = int(np.argmin(np.isfinite(curve)))
        raise ValueError(
            f"Training diverged: the loss is {curve[step]} at step {step}. {remedy}."
        )
    return result
