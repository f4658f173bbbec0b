// Every method on conversations, by the npm package `openai`: node conversations.mjs BASE_URL MODEL
import assert from "node:assert/strict";
import OpenAI, { NotFoundError } from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "sk-node", maxRetries: 0, timeout: 20_000 });
const said = (content) => ({ type: "message", role: "user", content });

const made = await client.conversations.create({ metadata: { topic: "a" }, items: [said("zero")] });
assert.equal(made.object, "conversation");
assert.deepEqual(await client.conversations.retrieve(made.id), made);
const changed = await client.conversations.update(made.id, { metadata: { b: "c" } });
assert.deepEqual(changed, { ...made, metadata: { b: "c" } });

const whole = await client.responses.create({ model, input: "one", conversation: made.id });
assert.equal(whole.conversation.id, made.id);
const stream = await client.responses.create({
  model,
  input: "two",
  conversation: { id: made.id },
  stream: true,
});
let last;
for await (const event of stream) last = event;
assert.equal(last.type, "response.completed");
assert.equal(last.response.conversation.id, made.id);

const added = await client.conversations.items.create(made.id, {
  items: [said("three")],
  include: ["message.output_text.logprobs"],
});
assert.equal(added.data.length, 1);
const items = [];
for await (const item of client.conversations.items.list(made.id, { order: "asc", limit: 2 })) {
  items.push(item);
}
const words = items.map((item) => item.content[0].text);
const where = { conversation_id: made.id };
assert.deepEqual(await client.conversations.items.retrieve(items[3].id, where), items[3]);
assert.deepEqual(await client.conversations.items.delete(items[3].id, where), changed);
await assert.rejects(client.conversations.items.retrieve(items[3].id, where), NotFoundError);

const gone = await client.conversations.delete(made.id);
assert.equal(gone.deleted, true);
await assert.rejects(client.conversations.retrieve(made.id), NotFoundError);
console.log(JSON.stringify(words));
