"""Read very many damaged files and new programs, each within 1 GiB of memory and 5 seconds of CPU; count the results.

    cd tests && python -m fuzz.campaign COUNTS.json [--programs 100000] [--mutations 1000000] [--jobs 2] [--seed S]

Every reader of files from elsewhere takes part (SUITES). The files are read in processes that the operating system
limits; a process that dies is replaced, and the file that it died of is a failure. The counts are written to
COUNTS.json after every piece of work, and a later call with the same file continues there. The exit status is 1 if
there were failures; each is listed with what reads it again:

    cd tests && python -m fuzz.campaign --again SUITE CASE NUMBER [--seed S]
"""
import argparse
import collections
import contextlib
import importlib
import json
import math
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed

from fuzz import mutations

SUITES = ["fuzz_pytorch", "fuzz_cifar", "fuzz_idx", "fuzz_arrays", "fuzz_parts", "fuzz_runs"]
MEMORY, SECONDS = 1 << 30, 5
PIECE = 4000  # files that one process reads


def work(suite, case, first, n, seed):
    """Read files in this process, which the operating system limits. Print the counts as JSON. Before each file, write
    its number to stderr, so that the number of the file that ended the process is known."""
    module = importlib.import_module(f"fuzz.{suite}")
    came, failures, number = collections.Counter(), [], first
    with module.cases() as cases:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

        def before(i):
            os.pwrite(2, b"%20d" % i, 0)
            spent = resource.getrusage(resource.RUSAGE_SELF)
            limit = math.ceil(spent.ru_utime + spent.ru_stime) + SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))

        for number in range(first, first + n):
            try:
                found = mutations.run({case: cases[case]}, 1, seed, first=number, before=before)
            except AssertionError as e:
                failures.append({"suite": suite, "case": case, "number": number, "what": str(e)[:1000]})
                continue
            slowest = max(came.pop("slowest, ms", 0), found.pop("slowest, ms"))
            came.update({name.rpartition(": ")[2]: count for name, count in found.items()})
            came["slowest, ms"] = slowest
    came["peak of memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"counts": came, "failures": failures}))


def piece(suite, case, first, n, seed):
    """Read files in processes of their own until all `n` are read, and return (counts, failures)."""
    counts, failures = collections.Counter(), []
    end, step = first + n, n
    while first < end:
        with tempfile.NamedTemporaryFile() as at:
            done = subprocess.run([sys.executable, "-m", "fuzz.campaign", "--work", suite, case, str(first), str(step),
                                   str(seed)], stdout=subprocess.PIPE, stderr=at, text=True,
                                  env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
            said = pathlib.Path(at.name).read_text(errors="replace")
        if done.returncode == 0:
            found = json.loads(done.stdout)
            merge(counts, found["counts"])
            failures += found["failures"]
            first, step = first + step, min(step * 4, n, max(end - first - step, 1))
        elif said[:20].strip().isdigit() and step == 1:
            name = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit {done.returncode}"
            failures.append({"suite": suite, "case": case, "number": first, "what": f"{name}: {said[20:][-500:]}"})
            first, step = first + 1, min(PIECE, max(end - first - 1, 1))
        elif said[:20].strip().isdigit():  # read those before the file, and then it alone
            step = max(int(said[:20]) - first, 1)
        else:
            raise RuntimeError(f"{suite}, {case}: {said[-2000:]}")
    return counts, failures


def merge(counts, more):
    for name, count in more.items():
        counts[name] = max(counts[name], count) if "," in name else counts[name] + count


def names(suite):
    with importlib.import_module(f"fuzz.{suite}").cases() as cases:
        return list(cases)


def main():
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("counts", type=pathlib.Path, nargs="?")
    cli.add_argument("--programs", type=int, default=100_000)
    cli.add_argument("--mutations", type=int, default=1_000_000)
    cli.add_argument("--jobs", type=int, default=2)
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--work", nargs=5)
    cli.add_argument("--again", nargs=3)
    args = cli.parse_args()
    if args.work or args.again:
        suite, case, first, *rest = args.work or args.again
        n, seed = map(int, rest or (1, args.seed))
        return work(suite, case, int(first), n, seed)

    cases = [(suite, case) for suite in SUITES for case in names(suite)]
    programs = [key for key in cases if "programs" in key[1]]
    state = json.loads(args.counts.read_text()) if args.counts.exists() else {"seed": args.seed, "cases": {},
                                                                              "failures": []}
    todo = []
    for suite, case in cases:
        wanted = math.ceil(args.programs / len(programs) if (suite, case) in programs
                           else args.mutations / (len(cases) - len(programs)))
        first = state["cases"].setdefault(f"{suite}: {case}", {"read": 0})["read"]
        todo += [(suite, case, at, min(PIECE, wanted - at)) for at in range(first, wanted, PIECE)]
    todo.sort(key=lambda job: job[2])  # all readers advance together, whenever it ends
    with ThreadPoolExecutor(args.jobs) as pool:
        running = {pool.submit(piece, *job, state["seed"]): job for job in todo}
        with contextlib.suppress(KeyboardInterrupt):
            for future in as_completed(running):
                suite, case, first, n = running[future]
                (counts, failures), entry = future.result(), state["cases"][f"{suite}: {case}"]
                # Pieces of one case end in any order, but a case has few at once: a gap is read again by a later call.
                entry.setdefault("pieces", []).append([first, n])
                entry["read"] = reached(entry["pieces"])
                found = collections.Counter(entry.get("counts", {}))
                merge(found, counts)
                entry["counts"] = dict(found)
                state["failures"] += failures
                state["total"] = {kind: sum(sum(n for _, n in entry.get("pieces", [])) for name, entry in
                                            state["cases"].items() if ("programs" in name) == (kind == "programs"))
                                  for kind in ("programs", "mutations")}
                args.counts.write_text(json.dumps(state, indent=1) + "\n")
    print(json.dumps({"total": state.get("total"), "failures": state["failures"]}, indent=1))
    return bool(state["failures"])


def reached(pieces):
    """Return the number of the first file that no piece from the beginning on has read."""
    end = 0
    for first, n in sorted(pieces):
        if first == end:
            end += n
    return end


if __name__ == "__main__":
    sys.exit(main())
