// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Barretenberg (C++): prove a chain of Poseidon2 permutations with UltraHonk,
// in one `bb` process that bb.js drives over a Unix socket.
//
// SIZE is log2 of the circuit's gates.  The process that proves is the `bb`
// child, so its /proc entry is what gets measured, and the variables of
// ZKN_BENCH_CHILD_ENV (JSON) are set for that child alone: node itself runs as
// it is.  The counters of a preloaded libzknalloc are read from outside between
// proofs, by the zkprof that ZKN_BENCH_ZKPROF names, if any.
//
// The reference string.  bb accepts only points of Aztec's own ceremony for
// its verifier, and those cannot be had from a package registry.  This program
// makes a structured reference string of its own: powers of a random secret,
// computed by bb.  Proving with it is exactly the work of the real one.  For
// verification, a *copy* of bb gets its built-in G2 point of the ceremony
// replaced by ours; each proof is checked in full, pairing included, by that
// second process.  The prover is the package's untouched binary.  Such proofs
// are sound for a measurement and worth nothing else: whoever keeps the secret
// could forge them (it is not kept).
//
// The protocol on standard output is that of meter.py.

import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const started = performance.now();
const { values: options } = parseArgs({
  options: {
    size: { type: 'string' },
    proofs: { type: 'string', default: '0' },
    threads: { type: 'string', default: '1' },
    data: { type: 'string' },
    packages: { type: 'string' }, // the npm prefix
  },
});
const size = Number(options.size);
const threads = Number(options.threads);
const data = path.resolve(options.data);
const require = createRequire(path.join(path.resolve(options.packages), 'package.json'));
const load = (name) => import(pathToFileURL(require.resolve(name)));

const say = (line) => fs.writeSync(1, JSON.stringify(line) + '\n');
console.log = console.error; // the packages' chatter is not part of the protocol

const { Barretenberg, BackendType, UltraHonkBackend, UltraHonkVerifierBackend } =
  await load('@aztec/bb.js');

// ----------------------------------------------------------------- circuit

const GATES_PER_PERMUTATION = 73; // as bb's own circuitStats counts them
const permutations = Math.floor((0.84 * 2 ** size) / GATES_PER_PERMUTATION);

/** Compile the chain and compute its witness; both are kept in `data`. */
async function circuit() {
  const kept = path.join(data, `chain-${size}.json`);
  if (!fs.existsSync(kept)) {
    const { compile, createFileManager } = await load('@noir-lang/noir_wasm');
    const { Noir } = await load('@noir-lang/noir_js');
    const source = path.join(data, `chain-${size}`);
    fs.mkdirSync(path.join(source, 'src'), { recursive: true });
    fs.writeFileSync(
      path.join(source, 'Nargo.toml'),
      '[package]\nname = "chain"\ntype = "bin"\nauthors = [""]\n[dependencies]\n',
    );
    fs.writeFileSync(
      path.join(source, 'src', 'main.nr'),
      `use std::hash::poseidon2_permutation;
fn main(x: Field) -> pub Field {
    let mut state = [x, 0, 0, 0];
    for _ in 0..${permutations} {
        state = poseidon2_permutation(state);
    }
    state[0]
}
`,
    );
    const { program } = await compile(createFileManager(source));
    const { witness } = await new Noir(program).execute({ x: 3 });
    const text = JSON.stringify({
      bytecode: program.bytecode,
      witness: Buffer.from(witness).toString('base64'),
    });
    fs.writeFileSync(kept + '.part', text);
    fs.renameSync(kept + '.part', kept);
  }
  const { bytecode, witness } = JSON.parse(fs.readFileSync(kept, 'utf8'));
  return { bytecode, witness: Buffer.from(witness, 'base64') };
}

// -------------------------------------------------------- reference string

const ORDER = 21888242871839275222246405745257275088548364400416034343698204186575808495617n;
const bytes = (n) => Buffer.from(n.toString(16).padStart(64, '0'), 'hex');
const G1 = { x: bytes(1n), y: bytes(2n) };
const G2 = {
  x: [
    bytes(0x1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6edn),
    bytes(0x198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2n),
  ],
  y: [
    bytes(0x12c85ea5db8c6deb4aab71808dcb408fe3d1e7690c43d37b4ce6cc0166fa7daan),
    bytes(0x090689d0585ff075ec9e99ad690c3395bc4b313370b38ef355acdadcd122975bn),
  ],
};
// The ceremony's [secret]G2 as bb carries it: x then y, each real part first.
const CEREMONY_G2 = Buffer.from(
  '0118c4d5b837bcc2bc89b5b398b5974e9f5944073b32078b7e231fec938883b0' +
    '260e01b251f6f1c7e7ff4e580791dee8ea51d87a358e038b4efe30fac09383c1' +
    '22febda3c0c0632a56475b4214e5615e11e6dd3f96e6cea2854a87d4dacc5e55' +
    '04fc6369f7110fe3d25156c1bb9a72859cf2a04641f99ba4ee413c80da6a5fe4',
  'hex',
);
const SPARE_POINTS = 64; // zero-knowledge blinding commits to a few more than 2^SIZE

/** Make 2^SIZE points and the matching G2 point; about 3 minutes for 2^20. */
async function referenceString() {
  const folder = path.join(data, `crs-${size}`);
  if (!fs.existsSync(path.join(folder, 'bn254_g1.dat'))) {
    fs.mkdirSync(folder, { recursive: true });
    const bb = await startBb({ threads: 1 });
    const secret = BigInt('0x' + randomBytes(48).toString('hex')) % ORDER;
    const count = 2 ** size + SPARE_POINTS;
    const points = Buffer.alloc(count * 64);
    const batch = 1024;
    let power = 1n;
    for (let first = 0; first < count; first += batch) {
      const wanted = [];
      for (let i = first; i < Math.min(first + batch, count); i++) {
        wanted.push(bb.bn254G1Mul({ point: G1, scalar: bytes(power) }));
        power = (power * secret) % ORDER;
      }
      (await Promise.all(wanted)).forEach(({ point }, i) => {
        points.set(point.x, (first + i) * 64);
        points.set(point.y, (first + i) * 64 + 32);
      });
    }
    const { point } = await bb.bn254G2Mul({ point: G2, scalar: bytes(secret) });
    await stopBb(bb);
    fs.writeFileSync(path.join(folder, 'bn254_g2.dat'), Buffer.concat([...point.x, ...point.y]));
    fs.writeFileSync(path.join(folder, 'part'), points);
    fs.renameSync(path.join(folder, 'part'), path.join(folder, 'bn254_g1.dat'));
  }
  return folder;
}

/** Copy bb with the ceremony's G2 point replaced by that of `folder`. */
function verifierBinary(folder) {
  const { findBbBinary } = require('@aztec/bb.js/platform');
  const binary = fs.readFileSync(findBbBinary());
  const place = binary.indexOf(CEREMONY_G2);
  if (place < 0 || binary.indexOf(CEREMONY_G2, place + 1) >= 0) {
    throw new Error('this bb does not carry the ceremony point exactly once');
  }
  fs.readFileSync(path.join(folder, 'bn254_g2.dat')).copy(binary, place);
  const copy = path.join(folder, 'bb-verifier');
  fs.writeFileSync(`${copy}.${process.pid}`, binary, { mode: 0o755 });
  fs.renameSync(`${copy}.${process.pid}`, copy);
  return copy;
}

// ---------------------------------------------------------------- processes

/** Start one bb; bb.js copies process.env, so that is where variables go. */
async function startBb({ threads, bbPath, environment = {} }) {
  const saved = { ...process.env };
  Object.assign(process.env, environment);
  try {
    return await Barretenberg.new({ backend: BackendType.NativeUnixSocket, threads, bbPath });
  } finally {
    for (const name of Object.keys(environment)) {
      if (name in saved) process.env[name] = saved[name];
      else delete process.env[name];
    }
  }
}

/** End a bb with its exit handlers run, so that a preloaded library reports. */
async function stopBb(bb) {
  const child = bb.backend.process;
  child.ref(); // bb.js lets node leave without waiting for bb
  const exited = new Promise((resolve) => child.once('exit', resolve));
  await bb.shutdown({});
  await exited;
}

/** Read what /proc says of a process: CPU seconds, minor faults, VmHWM. */
function usage(pid) {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' '); // from field 3 on
  const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
  const ticks = 100; // USER_HZ, the same on every Linux that node supports
  return {
    faults: Number(fields[7]),
    user: Number(fields[11]) / ticks,
    sys: Number(fields[12]) / ticks,
    peakKib: Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)[1]),
  };
}

/** Ask zkprof for the hits and misses of libzknalloc in a process; null where it is not loaded. */
function libraryCounters(pid) {
  const zkprof = process.env.ZKN_BENCH_ZKPROF;
  if (!zkprof) return null;
  const asked = spawnSync(zkprof, ['stats', String(pid), '--json'], { encoding: 'utf8' });
  if (asked.status !== 0) return null; // it says so where the process has no libzknalloc
  const { hits, misses } = JSON.parse(asked.stdout).library.counters;
  return { hits, misses };
}

// --------------------------------------------------------------------- main

const { bytecode, witness } = await circuit();
process.env.CRS_PATH = await referenceString();
const prover = await startBb({
  threads,
  environment: JSON.parse(process.env.ZKN_BENCH_CHILD_ENV ?? '{}'),
});
const verifier = await startBb({ threads: 1, bbPath: verifierBinary(process.env.CRS_PATH) });
const backend = new UltraHonkBackend(bytecode, prover);
const checker = new UltraHonkVerifierBackend(verifier);
const verificationKey = await backend.getVerificationKey();
const [gates] = await prover.acirGetCircuitSizes(backend.acirUncompressedBytecode, false, false);
const pid = prover.backend.process.pid;
say({
  ready: pid,
  setup_s: (performance.now() - started) / 1000,
  what: `2^${size} gates, ${gates} used, ${permutations} Poseidon2 permutations`,
});

let counted = libraryCounters(pid);
for (let number = 0; number < Number(options.proofs); number++) {
  const before = usage(pid);
  const start = performance.now();
  const proof = await backend.generateProof(witness);
  const wall = (performance.now() - start) / 1000;
  const after = usage(pid);
  const library = counted && libraryCounters(pid);
  const tampered = { ...proof, proof: proof.proof.slice() };
  tampered.proof[31] ^= 1;
  const verified =
    (await checker.verifyProof({ ...proof, verificationKey })) &&
    !(await checker.verifyProof({ ...tampered, verificationKey }));
  say({
    proof: number,
    wall_s: wall,
    user_s: after.user - before.user,
    sys_s: after.sys - before.sys,
    minor_faults: after.faults - before.faults,
    ...(library && {
      hits: library.hits - counted.hits,
      misses: library.misses - counted.misses,
    }),
    verified,
    peak_rss_kib: usage(pid).peakKib,
  });
  counted = library;
  if (!verified) throw new Error(`proof ${number} was refused by bb's own verifier`);
}
await stopBb(verifier);
await stopBb(prover);
