// Takes the jobs of a few of Immich's queues with the BullMQ that Immich uses, as Immich does: a handler that throws
// is caught, so that BullMQ sees success; after the vector of an upload duplicates are sought.
//
// node worker.cjs BULLMQ REDIS_PORT URL_OF_THE_DOUBLE; on standard input: {"pause": QUEUE}, {"resume": QUEUE} or
// {"add": QUEUE, "name": JOB, "data": {…}}. Each is answered by a line.
const { createRequire } = require('node:module');
const readline = require('node:readline');

const [bullmq, port, double] = process.argv.slice(2);
const { Queue, Worker } = createRequire(`${process.cwd()}/`)(bullmq);
const connection = { host: '127.0.0.1', port: Number(port) };
const options = { connection, prefix: 'immich_bull' };
const defaultJobOptions = { attempts: 1, removeOnComplete: true, removeOnFail: false };
const concurrency = { ocr: 1, smartSearch: 2, duplicateDetection: 1 };
const queues = {};

async function handle(job) {
  const body = JSON.stringify({ name: job.name, data: job.data });
  const answer = await fetch(`${double}/double/job`, { method: 'POST', body });
  const { succeeded } = await answer.json();
  if (succeeded && job.name === 'SmartSearch' && job.data.source === 'upload') {
    await queues.duplicateDetection.add('AssetDetectDuplicates', job.data);
  }
}

async function main() {
  for (const name of Object.keys(concurrency)) {
    queues[name] = new Queue(name, { ...options, defaultJobOptions });
    await queues[name].waitUntilReady();
    const worker = new Worker(name, (job) => handle(job).catch(() => {}), { ...options, concurrency: concurrency[name] });
    await worker.waitUntilReady();
  }
  console.log('ready');
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    if (order.pause) await queues[order.pause].pause();
    if (order.resume) await queues[order.resume].resume();
    if (order.add) await queues[order.add].add(order.name, order.data);
    console.log('done');
  }
  process.exit(0);
}

main();
