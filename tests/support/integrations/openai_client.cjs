// The official OpenAI client, unchanged: makes the calls that it reads, and writes what came of each as a line of JSON.
"use strict";

const { createReadStream, readFileSync } = require("node:fs");
const { createRequire } = require("node:module");

const { packages, url, key, calls } = JSON.parse(readFileSync(0, "utf8"));
const OpenAI = createRequire(packages + "/")("openai");
const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });

async function outcome({ method, fields, files }) {
  const streams = Object.entries(files).map(([name, path]) => [name, createReadStream(path)]);
  try {
    if (method === "models") {
      const models = [];
      for await (const model of client.models.list()) models.push(model.id);
      return { models };
    }
    const answer = await client.images[method]({ ...fields, ...Object.fromEntries(streams) });
    if (!fields.stream) return { images: answer.data };
    const events = [];
    for await (const event of answer) events.push(event);
    return { events };
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    const { status, code, param } = error;
    return { error: { kind: error.constructor.name, status, code, param } };
  }
}

(async () => {
  for (const call of calls) console.log(JSON.stringify(await outcome(call)));
})();
