// SPDX-License-Identifier: MIT OR Apache-2.0
//
// snarkjs: a circom chain of SIZE squarings, proved with Groth16 in WebAssembly.
//
// A negative control: WebAssembly memory is one mapping that V8 makes itself,
// so no preloaded allocator reaches the prover's buffers.
//
// circom (a WebAssembly build of the compiler) makes the circuit; the powers of
// tau and the keys are made here with a single contribution, which is fine for
// a measurement and nothing else.  The protocol is that of meter.py.

import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { parseArgs } from 'node:util';

const started = performance.now();
const { values: options } = parseArgs({
  options: {
    size: { type: 'string' },
    proofs: { type: 'string', default: '0' },
    threads: { type: 'string', default: '1' }, // snarkjs takes every CPU it finds
    data: { type: 'string' },
    packages: { type: 'string' }, // the npm prefix
  },
});
const size = Number(options.size);
const folder = path.join(path.resolve(options.data), `chain-${size}`);
const prefix = path.resolve(options.packages);
const snarkjs = createRequire(path.join(prefix, 'package.json'))('snarkjs');

const say = (line) => fs.writeSync(1, JSON.stringify(line) + '\n');
const file = (name) => path.join(folder, name);

const INPUT = 3n;
const FIELD = 21888242871839275222246405745257275088548364400416034343698204186575808495617n;

/** Compute the circuit's public output in plain integers. */
function output() {
  let state = INPUT;
  for (let i = 0n; i < BigInt(size); i++) state = (state * state + i) % FIELD;
  return state;
}

/** Compile the circuit and make its keys; the verification key comes last. */
async function setUp() {
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(
    file('chain.circom'),
    `pragma circom 2.0.0;
template Chain(n) {
    signal input x;
    signal output y;
    signal state[n + 1];
    state[0] <== x;
    for (var i = 0; i < n; i++) {
        state[i + 1] <== state[i] * state[i] + i;
    }
    y <== state[n];
}
component main = Chain(${size});
`,
  );
  const circom = path.join(prefix, 'node_modules', 'circom2', 'cli.js');
  const compiled = spawnSync(process.execPath, [circom, 'chain.circom', '--r1cs', '--wasm'], {
    cwd: folder,
    encoding: 'utf8',
  });
  if (!fs.existsSync(file('chain.r1cs'))) {
    throw new Error(`circom failed:\n${compiled.stdout}${compiled.stderr}`);
  }
  const entropy = () => randomBytes(32).toString('hex');
  const curve = await snarkjs.curves.getCurveFromName('bn128');
  const power = Math.ceil(Math.log2(size + 2));
  await snarkjs.powersOfTau.newAccumulator(curve, power, file('0.ptau'));
  await snarkjs.powersOfTau.contribute(file('0.ptau'), file('1.ptau'), 'bench', entropy());
  await snarkjs.powersOfTau.preparePhase2(file('1.ptau'), file('2.ptau'));
  await snarkjs.zKey.newZKey(file('chain.r1cs'), file('2.ptau'), file('0.zkey'));
  await snarkjs.zKey.contribute(file('0.zkey'), file('1.zkey'), 'bench', entropy());
  const key = await snarkjs.zKey.exportVerificationKey(file('1.zkey'));
  fs.writeFileSync(file('key.json'), JSON.stringify(key));
}

/** The peak of this process's resident memory. */
function peakRssKib() {
  const status = fs.readFileSync('/proc/self/status', 'utf8');
  return Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)[1]);
}

if (!fs.existsSync(file('key.json'))) await setUp();
const key = JSON.parse(fs.readFileSync(file('key.json'), 'utf8'));
const expected = output().toString();
const wrong = ((BigInt(expected) + 1n) % FIELD).toString();
say({
  ready: process.pid,
  setup_s: (performance.now() - started) / 1000,
  what: `${size} multiplications, witness included`,
});

for (let number = 0; number < Number(options.proofs); number++) {
  const before = process.resourceUsage();
  const start = performance.now();
  const { proof, publicSignals } = await snarkjs.groth16.fullProve(
    { x: INPUT.toString() },
    file('chain_js/chain.wasm'),
    file('1.zkey'),
  );
  const wall = (performance.now() - start) / 1000;
  const after = process.resourceUsage();
  const verified =
    publicSignals[0] === expected &&
    (await snarkjs.groth16.verify(key, [expected], proof)) &&
    !(await snarkjs.groth16.verify(key, [wrong], proof));
  say({
    proof: number,
    wall_s: wall,
    user_s: (after.userCPUTime - before.userCPUTime) / 1e6,
    sys_s: (after.systemCPUTime - before.systemCPUTime) / 1e6,
    minor_faults: after.minorPageFault - before.minorPageFault,
    verified,
    peak_rss_kib: peakRssKib(),
  });
  if (!verified) throw new Error(`proof ${number} was refused by snarkjs's own verifier`);
}
process.exit(0); // snarkjs leaves its worker threads running
