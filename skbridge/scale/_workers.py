"""The shards of a run on the actors of Ray, or in this process."""

from contextlib import closing

import joblib

from skbridge.scale._packages import import_ray

# Number of times that a shard is repeated if its process dies.
_RETRIES = 3


def run_shards(work, shards, *, n_actors, on_gpu, verbose):
    """Do the work of each shard, in any order.

    Parameters
    ----------
    work : callable
        Takes a shard and `n_threads`, an int. It can be pickled.
    shards : list
    n_actors : int or None
        Processes that Ray starts. 0 is this process, without Ray. None is one per GPU
        of the cluster or, without one, one per machine.
    on_gpu : bool
        Whether each process needs a GPU where the cluster has some.
    verbose : int
        Above 0, a progress bar is written to stderr.
    """
    if n_actors == 0:
        n_threads = joblib.cpu_count()
        done = (work(shard, n_threads) for shard in shards)
    else:
        done = _on_ray(work, shards, n_actors, on_gpu)
    with closing(done):
        if verbose:
            from tqdm.auto import tqdm

            done = tqdm(done, total=len(shards), unit="shard")
        for _ in done:
            pass


class _Actor:
    """A process that does the work of one shard after another."""

    # It is begun without arguments, which Ray would not have any more to restart it.
    def run(self, work, shard, n_threads):
        work(shard, n_threads)


def _on_ray(work, shards, n_actors, on_gpu):
    """Yield once per shard that is done."""
    ray = import_ray()
    from ray.util import ActorPool

    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    actors = []
    try:
        n_actors, resources = _resources(ray, n_actors, on_gpu)
        actor = ray.remote(max_restarts=-1, max_task_retries=_RETRIES, **resources)
        actor = actor(_Actor)
        actors = [actor.remote() for _ in range(min(n_actors, len(shards)))]
        sent, n_threads = ray.put(work), resources["num_cpus"]
        yield from ActorPool(actors).map_unordered(
            lambda one, shard: one.run.remote(sent, shard, n_threads), shards
        )
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayActorError as error:
        raise RuntimeError(
            f"A process died {_RETRIES + 1} times at the same shard, perhaps for lack "
            f"of memory: {str(error)[:200]}. Start the run again with fewer actors, or "
            "a smaller batch_size; finished shards are not made again."
        ) from error
    finally:
        if is_ours:
            ray.shutdown()
        else:
            for one in actors:
                ray.kill(one)


def _resources(ray, n_actors, on_gpu):
    """Divide the CPU cores and GPUs of a cluster among its actors."""
    cluster = ray.cluster_resources()
    n_cpus, n_gpus = int(cluster["CPU"]), int(cluster.get("GPU", 0)) if on_gpu else 0
    if n_actors is None:
        n_actors = n_gpus or sum(node["Alive"] for node in ray.nodes())
    if n_actors > n_cpus:
        raise ValueError(
            f"n_actors must be at most the number of CPU cores of the cluster, "
            f"{n_cpus}, got {n_actors}."
        )
    share = min(1, n_gpus / n_actors)
    return n_actors, {"num_cpus": n_cpus // n_actors, "num_gpus": share}
