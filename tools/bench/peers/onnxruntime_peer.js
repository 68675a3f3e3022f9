// Runs the graphs of export_onnx.py with ONNX Runtime, as compare.py asks line by line:
//   node onnxruntime_peer.js DIRECTORY THREADS
//   {"do": "describe"}  -> {"version", "rows"}
//   {"do": "score", "row": "flat_fp32", "output": FILE}  every request's scores in order, float32
//   {"do": "time", "row": "flat_fp32", "candidates": 100, "ms": 100}  -> {"ns": of one request}
// The native binding is called without the promise and the event loop turn that onnxruntime-node's own run() adds.
'use strict';
const fs = require('fs');
const path = require('path');
const readline = require('readline');
const {Tensor} = require('onnxruntime-node');
const {binding, initOrt} = require('onnxruntime-node/dist/binding');

const [directory, threads] = [process.argv[2], Number(process.argv[3])];
const options = {
  intraOpNumThreads: threads,
  interOpNumThreads: 1,
  executionMode: 'sequential',
  graphOptimizationLevel: 'all',
  enableCpuMemArena: true,
  enableMemPattern: true,
  extra: {session: {intra_op: {allow_spinning: '1'}, set_denormal_as_zero: '1'}},
};

const index = JSON.parse(fs.readFileSync(path.join(directory, 'inputs.json')));
const bytes = fs.readFileSync(path.join(directory, 'inputs.bin'));

// Request r of an array: a copy of its own, since the binding takes no view into a larger buffer for granted.
function part({offset, shape}, r, Values) {
  const size = shape.slice(1).reduce((a, b) => a * b, 1);
  const begin = bytes.byteOffset + offset + r * size * 4;
  return new Values(bytes.buffer.slice(begin, begin + size * 4));
}

function repeat(row, times) {
  const out = new row.constructor(row.length * times);
  for (let i = 0; i < times; ++i) out.set(row, i * row.length);
  return out;
}

// The feeds and fetches of every request with N candidates; made once, then reused.
function makeCalls(row, N) {
  const arrays = index[N];
  const calls = [];
  for (let r = 0; r < arrays.context_ids.shape[0]; ++r) {
    const numbers = part(arrays.context_numbers, r, Float32Array);
    const context = part(arrays.context_ids, r, Int32Array);
    const candidates = part(arrays.candidate_ids, r, Int32Array);
    const width = candidates.length / N;
    let feeds;
    if (row.startsWith('split')) {
      feeds = {
        context_numbers: new Tensor('float32', numbers, [1, numbers.length]),
        context_ids: new Tensor('int32', context, [1, context.length]),
        candidate_ids: new Tensor('int32', candidates, [N, width]),
      };
    } else {
      const ids = new Int32Array(N * (context.length + width));
      for (let i = 0; i < N; ++i) {
        ids.set(context, i * (context.length + width));
        ids.set(candidates.subarray(i * width, (i + 1) * width), i * (context.length + width) + context.length);
      }
      feeds = {
        numbers: new Tensor('float32', repeat(numbers, N), [N, numbers.length]),
        ids: new Tensor('int32', ids, [N, context.length + width]),
      };
      if (row === 'identity') feeds.given = new Tensor('float32', new Float32Array(N), [N, 1]);
    }
    const scores = new Float32Array(N);
    calls.push({feeds, fetches: {scores: new Tensor('float32', scores, [N, 1])}, scores});
  }
  return calls;
}

initOrt();
const sessions = {};
for (const file of fs.readdirSync(directory).filter((file) => file.endsWith('.onnx'))) {
  const row = path.basename(file, '.onnx');
  sessions[row] = new binding.InferenceSession();
  sessions[row].loadModel(path.join(directory, file), options);
}
const prepared = {};

function callsOf(row, N) {
  const key = (row === 'identity' ? row : row.split('_')[0]) + N;
  if (!(key in prepared)) prepared[key] = {calls: makeCalls(row, N), next: 0};
  return prepared[key];
}

function run(native, call) {
  native.run(call.feeds, call.fetches, {});
}

function score(row, output) {
  const parts = [];
  for (const N of Object.keys(index).map(Number)) {
    for (const call of callsOf(row, N).calls) {
      call.scores.fill(NaN);
      run(sessions[row], call);
      parts.push(Buffer.from(call.scores.slice().buffer));
    }
  }
  fs.writeFileSync(output, Buffer.concat(parts));
  return {};
}

// Calls for about a fifth of the time unmeasured, then as many as fit.
function time(row, N, ms) {
  const native = sessions[row];
  const prepared = callsOf(row, N);
  const {calls} = prepared;
  const until = (start, limit) => {
    let done = 0;
    do {
      run(native, calls[prepared.next]);
      prepared.next = (prepared.next + 1) % calls.length;
      ++done;
    } while (Number(process.hrtime.bigint() - start) < limit);
    return done;
  };
  until(process.hrtime.bigint(), ms * 2e5);
  const start = process.hrtime.bigint();
  const done = until(start, ms * 1e6);
  return {ns: Number(process.hrtime.bigint() - start) / done};
}

readline.createInterface({input: process.stdin}).on('line', (line) => {
  const ask = JSON.parse(line);
  const answer = ask.do === 'score' ? score(ask.row, ask.output)
      : ask.do === 'time' ? time(ask.row, ask.candidates, ask.ms)
      : {version: require('onnxruntime-node/package.json').version, rows: Object.keys(sessions)};
  process.stdout.write(JSON.stringify(answer) + '\n');
});
