// Talks to a server with @grpc/grpc-js and @grpc/proto-loader: node_client.js ADDRESS PROTO_DIRECTORY REQUESTS, where
// golden.py has written the requests. Prints nothing; an assertion that fails ends it with exit code 1.
'use strict';

const assert = require('assert');
const fs = require('fs');
const path = require('path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const [address, protos, requests] = process.argv.slice(2);
const GRPC_PROTOS = '/usr/share/grpc-proto';

function load(file) {
  const definition = protoLoader.loadSync(file, {
    includeDirs: [protos, GRPC_PROTOS],
    longs: String,
    enums: String,
    defaults: true,
  });
  return grpc.loadPackageDefinition(definition);
}

function read(name) {
  return JSON.parse(fs.readFileSync(path.join(requests, `${name}.json`), 'utf8'));
}

// The response, or the error.
function call(client, method, request) {
  const deadline = new Date(Date.now() + 60000);
  return new Promise((resolve) => {
    client[method](request, { deadline }, (error, response) => resolve(error || response));
  });
}

function stream(client, method, messages) {
  return new Promise((resolve, reject) => {
    const responses = [];
    const duplex = client[method]({ deadline: new Date(Date.now() + 60000) });
    duplex.on('data', (response) => responses.push(response));
    duplex.on('end', () => resolve(responses));
    duplex.on('error', reject);
    messages.forEach((message) => duplex.write(message));
    duplex.end();
  });
}

function check(scores, expected) {
  assert.strictEqual(scores.length, expected.scores.length);
  scores.forEach((score, i) => assert(Math.abs(score - expected.scores[i]) <= expected.tolerance, `${scores}`));
}

function inferScores(response) {
  assert.strictEqual(response.outputs.length, 1);
  const [output] = response.outputs;
  assert.deepStrictEqual([output.name, output.datatype], ['scores', 'FP32']);
  if (response.rawOutputContents.length === 0) return output.contents.fp32Contents;
  const raw = response.rawOutputContents[0];
  return Array.from({ length: raw.length / 4 }, (_, i) => raw.readFloatLE(4 * i));
}

async function main() {
  const credentials = grpc.credentials.createInsecure();
  const native = new (load('hilomoe/v1/scoring_service.proto').hilomoe.v1.ScoringService)(address, credentials);
  const v2 = new (load('inference/grpc_inference_service.proto').inference.GRPCInferenceService)(address, credentials);
  const health = new (load('grpc/health/v1/health.proto').grpc.health.v1.Health)(address, credentials);

  for (const i of [0, 1]) {
    const expected = read(`scores${i}`);
    const response = await call(native, 'score', read(`native${i}`));
    assert.deepStrictEqual([response.model, response.version], ['ctr', '1'], response.message);
    check(response.scores, expected);
    for (const form of ['typed', 'raw']) {
      const answer = await call(v2, 'modelInfer', { ...read(`${form}${i}`), id: 'request' });
      assert.deepStrictEqual([answer.modelName, answer.modelVersion, answer.id], ['ctr', '1', 'request'], answer.message);
      assert.deepStrictEqual(inferScores(answer), response.scores);
    }
  }
  const streamed = await stream(native, 'scoreStream', [read('native0'), read('native1')]);
  assert.strictEqual(streamed.length, 2);
  streamed.forEach((response, i) => check(response.scores, read(`scores${i}`)));

  const wrong = read('typed0');
  wrong.inputs[0].datatype = 'FP8';
  const error = await call(v2, 'modelInfer', wrong);
  assert.strictEqual(error.code, grpc.status.INVALID_ARGUMENT);
  assert(error.details.includes(`'${wrong.inputs[0].name}'`), error.details);
  assert.strictEqual((await call(native, 'score', { model: 'other' })).code, grpc.status.NOT_FOUND);

  assert((await call(v2, 'serverReady', {})).ready);
  assert((await call(v2, 'modelReady', { name: 'ctr' })).ready);
  assert.strictEqual((await call(v2, 'modelMetadata', { name: 'ctr' })).platform, 'hilomoe');
  assert.strictEqual((await call(native, 'getModel', {})).versions[0].state, 'AVAILABLE');

  assert.strictEqual((await call(health, 'check', { service: 'inference.GRPCInferenceService' })).status, 'SERVING');
  await new Promise((resolve, reject) => {
    const watch = health.watch({ service: '' });
    watch.on('data', (response) => {
      watch.cancel();
      response.status === 'SERVING' ? resolve() : reject(new Error(response.status));
    });
    watch.on('error', () => {});  // of being cancelled
  });
  [native, v2, health].forEach((client) => client.close());
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
