# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run other people's programs with and without the preload library.

::

    python tests/suites/programs.py              # all that are installed
    python tests/suites/programs.py redis g++

Each program does its work twice and must give the same result: what a server
then holds, what a compiler wrote, what a script computed. Without the library
it must succeed, and with it the library must have served large requests of it.
``tests/suites/compare.py`` does the same with test suites.

Exit codes: 0 same results, 1 differences (they are listed) or a program that
fails by itself, 2 bad usage.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from counters import served

from zk_nalloc import preload_path

Environment = Mapping[str, str]


def output(command: Sequence[str | Path], env: Environment, cwd: Path, text: str = "") -> str:
    """Run `command` and return what it wrote; it must succeed, or RuntimeError is raised."""
    done = subprocess.run(
        [str(part) for part in command],
        env=env,
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def digest(path: Path) -> str:
    """Return a hash of the file, or that it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no file"


@contextmanager
def server(command: Sequence[str | Path], env: Environment, cwd: Path) -> Iterator[None]:
    """Have `command` run in the background."""
    process = subprocess.Popen(
        [str(part) for part in command],
        env=env,
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def redis(env: Environment, folder: Path) -> str:
    """Benchmark a server that saves meanwhile, fill it with a known state, start it anew."""
    path = folder / "socket"
    options: list[str | Path] = ["--port", "0", "--unixsocket", path, "--dir", folder]
    options += ["--save", "", "--appendonly", "yes", "--enable-debug-command", "yes"]
    plain = {k: v for k, v in env.items() if k != "LD_PRELOAD"}
    script = "for i=1,60000 do redis.call('set','k'..i,string.rep('v',i%9000)) end"
    big = "for i=1,40 do redis.call('setrange','b'..i,i*100000,string.rep('x',300000)) end"
    grow = "for i=1,60 do redis.call('append','g',string.rep('y',i*10000)) end"

    def ask(*command: str) -> str:
        return output(["redis-cli", "-e", "-s", str(path), *command], plain, folder).strip()

    def wait(*command: str, until: str) -> None:
        for _ in range(600):
            try:
                if until in ask(*command):
                    return
            except RuntimeError:  # not there yet, or loading
                pass
            time.sleep(0.1)
        raise RuntimeError(f"redis: {command} never said {until}")

    with server(["redis-server", *options], env, folder):
        wait("ping", until="PONG")
        bench = ["redis-benchmark", "-s", str(path), "-q", "-r", "200"]
        small = "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange,mset"
        large = "set,get,lpush,rpush,lpop,rpop,sadd,hset,zadd"
        said = [
            output([*bench, "-n", count, "-d", size, "-t", tests], plain, folder)
            for count, size, tests in (("2000", "100", small), ("1000", "100000", large))
        ]
        failed = any("rror" in text for text in said)
        ask("flushall")
        state = [ask("eval", text, "0") for text in (script, big, grow)]
        for command in ("bgrewriteaof", "bgsave"):  # a fork each
            wait("info", "persistence", until="rdb_bgsave_in_progress:0")
            wait("info", "persistence", until="aof_rewrite_in_progress:0")
            ask(command)
            state.append(ask("debug", "digest"))
        wait("info", "persistence", until="rdb_bgsave_in_progress:0")
        info = ask("info", "persistence").split()
        state += [line for line in info if line.endswith("_status:ok")]
        state += [ask("debug", "reload"), ask("debug", "digest")]
    path.unlink(missing_ok=True)
    with server(["redis-server", *options], env, folder):
        wait("ping", until="PONG")
        return f"{failed} {state} " + ask("debug", "digest")


def postgres(env: Environment, folder: Path) -> str:
    """Run pgbench's mix of transactions, then look at what must add up."""
    bin_dir = max(Path("/usr/lib/postgresql").glob("*/bin"))
    shutil.chown(folder, "postgres", "postgres")
    folder.chmod(0o755)
    user = pwd.getpwnam("postgres")
    data = folder / "data"

    def run(*command: str | Path, environment: Environment) -> str:
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        return output([*as_user, *command], environment, folder)

    plain = {k: v for k, v in env.items() if k != "LD_PRELOAD"} | {"PGHOST": str(folder)}
    run(bin_dir / "initdb", "-D", data, "--no-sync", environment=plain)
    settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c work_mem=64MB"
    start: list[str | Path] = ["-D", data, "-w", "-l", folder / "log", "-o", settings]
    run(bin_dir / "pg_ctl", *start, "start", environment=env)
    try:
        run(bin_dir / "pgbench", "-i", "-s", "5", "postgres", environment=plain)
        bench = ["-c", "8", "-j", "2", "-t", "1000", "--random-seed=7", "postgres"]
        said = run(bin_dir / "pgbench", *bench, environment=plain)
        done = next((line for line in said.splitlines() if "actually processed" in line), said)
        failed = next((line for line in said.splitlines() if "failed" in line), "")
        query = (
            "select (select sum(abalance) from pgbench_accounts) ="
            " (select sum(bbalance) from pgbench_branches), count(*),"
            " md5(string_agg(filler, '' order by aid)) from pgbench_accounts;"
            " select count(*) from pgbench_history;"
            " select md5(string_agg(x::text, ',' order by x desc))"
            " from generate_series(1, 300000) x"
        )
        return f"{done} {failed} " + run(
            bin_dir / "psql", "-At", "-c", query, "postgres", environment=plain
        )
    finally:
        run(bin_dir / "pg_ctl", "-D", data, "-m", "fast", "stop", environment=plain)


NODE = """
const {createHash} = require('crypto'); const zlib = require('zlib');
let h = createHash('sha256'); const keep = [];
for (let i = 1; i <= 400; i++) {
  const b = Buffer.alloc(i * 40000, i & 255); const z = zlib.deflateSync(b, {level: 1});
  if (Buffer.compare(zlib.inflateSync(z), b)) throw 1;
  h.update(z); keep.push(new Float64Array(i * 1000).fill(i)); if (i % 50 == 0) keep.length = 0;
}
console.log(h.digest('hex'), JSON.stringify(Array.from({length: 2e5}, (_, i) => i * i)).length);
"""


def node(env: Environment, folder: Path) -> str:
    """Buffers, compression, typed arrays, JSON."""
    return output(["node", "-e", NODE], env, folder)


CPP = """
#include <map>
#include <string>
#include <vector>
#include <regex>
#include <algorithm>
#include <iostream>
int main() {
    std::map<std::string, std::vector<int>> m;
    for (long i = 0; i < 300000; i++) m[std::to_string(i * 7919 % 5003)].push_back(int(i));
    std::vector<std::string> lines;
    for (auto &[k, v] : m) lines.push_back(k + std::string(v.size() * 300, 'x'));
    std::sort(lines.rbegin(), lines.rend());
    std::vector<unsigned long> grow;
    for (unsigned long i = 0; i < 20000000; i++) grow.push_back(i * i);
    unsigned long sum = 0;
    for (auto &l : lines) sum = sum * 31 + l.size();
    for (auto x : grow) sum = sum * 31 + x;
    std::cout << sum << std::regex_match("12xx", std::regex("[0-9]+x+")) << "\\n";
}
"""


def gxx(env: Environment, folder: Path) -> str:
    """Compile a program with the library below the compiler; then run it so."""
    (folder / "a.cpp").write_text(CPP)
    command = ["g++", "-std=c++17", "-O2", "-g0", "a.cpp", "-o", "a"]
    said = output(command, env, folder)
    return said + digest(folder / "a") + output([folder / "a"], env, folder)


RUST = """
use std::collections::HashMap;
fn main() {
    let mut map: HashMap<u64, Vec<u64>> = HashMap::new();
    for i in 0..2_000_000u64 { map.entry(i * 7919 % 1009).or_default().push(i); }
    let handles: Vec<_> = (0..4u64).map(|t| std::thread::spawn(move || {
        let mut v = Vec::new();
        for i in 0..5_000_000u64 { v.push(i ^ t); }
        v.iter().fold(0u64, |a, x| a.wrapping_mul(31).wrapping_add(*x))
    })).collect();
    let mut keys: Vec<_> = map.iter().map(|(k, v)| (*k, v.len(), v.iter().sum::<u64>())).collect();
    keys.sort();
    println!("{:?} {:?}", keys.last(), handles.into_iter().map(|h| h.join().unwrap())
        .collect::<Vec<_>>());
}
"""


def rustc(env: Environment, folder: Path) -> str:
    """The same with Rust's compiler."""
    (folder / "a.rs").write_text(RUST)
    said = output(["rustc", "-O", "--edition", "2021", "a.rs"], env, folder)
    return said + digest(folder / "a") + output([folder / "a"], env, folder)


def python(env: Environment, folder: Path) -> str:
    """Pickles, big integers, sorting."""
    code = (
        "import hashlib, pickle, random; random.seed(1);"
        "x = [random.getrandbits(500000) for _ in range(60)];"
        "p = pickle.dumps(x); y = sorted(pickle.loads(p));"
        "z = y[0] * y[-1]; print(hashlib.sha256(p).hexdigest(), z % 1000003)"
    )
    return output([sys.executable, "-c", code], env, folder)


PROGRAMS: dict[str, tuple[str, Callable[[Environment, Path], str]]] = {
    "redis": ("redis-server", redis),
    "postgres": ("pgbench", postgres),
    "node": ("node", node),
    "g++": ("g++", gxx),
    "rustc": ("rustc", rustc),
    "python": (sys.executable, python),
}


def compare(name: str) -> bool:
    """Whether the program gives the same with the library as without."""
    _, function = PROGRAMS[name]
    results = []
    requests = 0
    for preload in (False, True):
        env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        with tempfile.TemporaryDirectory() as folder:
            stats = Path(folder) / "stats"
            if preload:
                env |= {"LD_PRELOAD": str(preload_path()), "ZK_NALLOC_STATS_FILE": str(stats)}
            try:
                results.append(function(env, Path(folder)))
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                if not preload:
                    print(f"{name}: fails without the library: {error}")
                    return False
                results.append(f"{error}")
            requests = served(stats)
    same = results[0] == results[1] and requests > 0
    print(
        f"{name}: {'same' if same else 'DIFFERENT'}, {requests} requests served:"
        f" {' '.join(results[0].split())}",
        flush=True,
    )
    if not same:
        print(f"{name}, with the library: {results[1]}")
    return same


def main() -> int:
    """Run the command line."""
    socket.setdefaulttimeout(60)
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(PROGRAMS))
    chosen = parser.parse_args().programs or list(PROGRAMS)
    if unknown := set(chosen) - set(PROGRAMS):
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    different = 0
    for name in chosen:
        if shutil.which(PROGRAMS[name][0]) is None:
            print(f"{name}: not run, {PROGRAMS[name][0]} is not installed")
        else:
            different += not compare(name)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
