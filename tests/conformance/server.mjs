// An application for jambonz as its users write them, with nothing but the public interface of
// @jambonz/sdk. What it sees it prints as lines of JSON; what it is to do it reads the same way.
//
// Audio: ws://127.0.0.1:<port>/audio obeys {"call": <callSid>, "do": <method>, "with": [...]}, where
// the methods are those of the SDK's AudioStream; audio for sendAudio is base64. /echo sends the
// caller's voice back. Hooks: http://127.0.0.1:<port>/hook. {"build": {...}} prints the verb that
// the SDK's builder makes.

import http from 'node:http';
import { createRequire } from 'node:module';
import readline from 'node:readline';
import { WebhookResponse } from '@jambonz/sdk/webhook';
import { createEndpoint } from '@jambonz/sdk/websocket';
import { Ajv2020 } from 'ajv/dist/2020.js';

const HOOK_SECRET = process.env.HOOK_SECRET;
const HOST = '127.0.0.1';
const METHODS = [
  'playAudio', 'killAudio', 'sendAudio', 'sendMark', 'clearMarks', 'disconnect', 'close',
];

const tell = (event, data) => process.stdout.write(`${JSON.stringify({ event, ...data })}\n`);
const logger = Object.fromEntries(
  ['debug', 'info', 'warn', 'error'].map((level) => [
    level, (...what) => tell('log', { level, what }),
  ]),
);

// Audio

const streams = new Map();

function follow(stream, req) {
  const call = stream.callSid;
  streams.set(call, stream);
  tell('connection', { call, metadata: stream.metadata, headers: req.headers, url: req.url });
  stream.on('audio', (pcm) => tell('audio', { call, pcm: pcm.toString('base64') }));
  for (const event of ['dtmf', 'playDone', 'mark']) {
    stream.on(event, (data) => tell(event, { call, data }));
  }
  stream.on('close', (code, reason) => tell('close', { call, data: { code, reason } }));
  stream.on('error', (err) => tell('error', { call, data: { message: err.message } }));
}

const audio = http.createServer();
const makeService = createEndpoint({ server: audio, logger });
makeService.audio({ path: '/audio' }).on('connection', follow);
makeService.audio({ path: '/echo' }).on('connection', (stream, req) => {
  follow(stream, req);
  stream.on('audio', (pcm) => stream.sendAudio(pcm));
});

// Hooks

const require = createRequire(import.meta.url);
const ajv = new Ajv2020({ allErrors: true, strict: false });
ajv.addSchema(require('@jambonz/schema/callbacks/base.schema.json'));
const isListenHook = ajv.compile(require('@jambonz/schema/callbacks/listen.schema.json'));
const verify = WebhookResponse.verifySignature(HOOK_SECRET);

const hooks = http.createServer(async (req, res) => {
  const parts = [];
  for await (const part of req) parts.push(part);
  const text = Buffer.concat(parts).toString();
  req.body = JSON.parse(text);
  isListenHook(req.body);
  verify(req, res, (err) => {
    tell('hook', {
      method: req.method,
      type: req.headers['content-type'],
      text,
      signature: err ? err.message : 'valid',
      faults: (isListenHook.errors ?? []).map((e) => `${e.instancePath} ${e.message}`),
    });
    res.setHeader('Content-Type', 'application/json');
    res.end(JSON.stringify(new WebhookResponse()));
  });
});

// Commands

function obey({ build, call, do: method, with: args = [] }) {
  if (build) {
    const [verb] = new WebhookResponse().listen(build).toJSON();
    tell('built', { verb });
    return;
  }
  if (!METHODS.includes(method)) throw new Error(`not a method to call: ${method}`);
  const values = method === 'sendAudio' ? [Buffer.from(args[0], 'base64')] : args;
  streams.get(call)[method](...values);
}

// The input ends with the tests, however they end.
readline.createInterface({ input: process.stdin })
  .on('line', (line) => obey(JSON.parse(line)))
  .on('close', () => process.exit(0));

audio.listen(Number(process.env.AUDIO_PORT ?? 0), HOST, () => hooks.listen(0, HOST, () => tell('listening', {
  audio: `ws://${HOST}:${audio.address().port}`,
  hook: `http://${HOST}:${hooks.address().port}/hook`,
})));
