// Checks the generated contract with independent implementations: Ajv compiles every JSON Schema in strict mode and
// validates every golden sample and the views of the fixture, and the AsyncAPI parser accepts the document.
//
// `make conformance` runs it.

import fs from "node:fs";
import path from "node:path";
import { Parser, fromFile } from "@asyncapi/parser";
import Ajv from "ajv/dist/2020.js";
import * as yaml from "js-yaml";

const schemas = process.env.SCHEMAS ?? path.resolve(import.meta.dirname, "../..");
const read = (...parts) => JSON.parse(fs.readFileSync(path.join(schemas, ...parts)));
const files = (folder) => fs.readdirSync(path.join(schemas, folder)).filter((name) => name.endsWith(".json"));
const failures = [];
const expect = (condition, what) => condition || failures.push(what);

const ajv = new Ajv({ strict: true, allErrors: true });
const validator = (name) => ajv.getSchema(`urn:otherix:schema:${name}`);
for (const file of files("json")) ajv.addSchema(read("json", file));
for (const file of files("json")) {
  try {
    validator(path.basename(file, ".json"));
  } catch (error) {
    failures.push(`${file}: ${error.message}`);
  }
}

// The messages of the AsyncAPI document, with their references to files as references to the schemas' ids.
const document = yaml.load(fs.readFileSync(path.join(schemas, "json/asyncapi.yaml"), "utf8"));
const resolved = JSON.parse(
  JSON.stringify(document.components.messages).replaceAll(/"\.\/([a-z0-9.-]+)\.json"/g, '"urn:otherix:schema:$1"'),
);
const messages = new Map(Object.values(resolved).map((message) => [message.name, ajv.compile(message.payload)]));
for (const file of files("golden")) {
  const event = read("golden", file);
  const valid = messages.get(event.type);
  expect(valid(event), `${file}: ${ajv.errorsText(valid.errors)}`);
  const changes = {
    "another type": { type: "dev.otherix.network.painted.v1" },
    "another data schema": { dataschema: "urn:otherix:schema:error" },
    "a short sequence": { sequence: "7" },
    "a short decisionprev": { decisionprev: "5" },
    "an unknown attribute": { colour: "red" },
    "an unknown field": { data: { ...event.data, colour: "red" } },
    "no data": { data: true },
  };
  for (const [what, change] of Object.entries(changes)) {
    expect(!valid({ ...event, ...change }), `${file}: accepted with ${what}`);
  }
}

// Views as queries returned them, by resource and verb.
const views = JSON.parse(fs.readFileSync(path.join(schemas, "../commands/tests/fixtures/v0.1/views.json")));
let answers = 0;
for (const [resource, verbs] of Object.entries(views)) {
  for (const [verb, data] of Object.entries(verbs)) {
    const valid = validator(`${resource}.${verb}.answer`);
    const each = verb === "list" || !Array.isArray(data) ? [data] : data;
    for (const data of each) {
      expect(valid({ data, meta: { position: 1 } }), `${resource}.${verb}: ${ajv.errorsText(valid.errors)}`);
      answers += 1;
    }
  }
}

const parsed = await fromFile(new Parser(), path.join(schemas, "json/asyncapi.yaml")).parse();
for (const { severity, message, path: at } of parsed.diagnostics) {
  if (severity === 0) failures.push(`asyncapi.yaml: ${message} at ${at.join("/")}`);
}
expect(parsed.document, "asyncapi.yaml: not parsed");

for (const failure of failures) console.error(failure);
console.log(
  `${files("json").length} schemas, ${messages.size} messages, ${files("golden").length} golden samples, ` +
    `${answers} answers: ${failures.length} failures`,
);
process.exitCode = failures.length === 0 ? 0 : 1;
