// crds.mjs FOLDER: each object of the Prometheus operator in FOLDER (JSON files) fits its schema.
//
// Two judges: the generated validator of the CRD (patterns, types, required fields), and TypeScript's check of an
// object literal against the CRD's interface, which refuses unknown fields. Must lie beside node_modules.

import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const folder = process.argv[2];
const models = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
let faults = 0;
const source = [];

const files = readdirSync(folder).filter((name) => name.endsWith(".json"));
for (const name of files) {
  const object = JSON.parse(readFileSync(`${folder}/${name}`, "utf8"));
  const kind = object.kind;
  const model = await import(`${models}/${kind}`);
  try {
    new model[kind](object).validate();
  } catch (error) {
    console.log(`${name}: ${error.message}`);
    faults += 1;
  }
  source.push(
    `{ const object: import("${models}/${kind}").I${kind} = ${JSON.stringify(object)}; void object; } // ${name}`,
  );
}

const work = new URL("typed/", import.meta.url).pathname;
rmSync(work, { recursive: true, force: true });
mkdirSync(work);
writeFileSync(`${work}crds.ts`, source.join("\n") + "\nexport {};\n");
const compiler = new URL("node_modules/typescript/bin/tsc", import.meta.url).pathname;
const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"];
try {
  execFileSync(process.execPath, [compiler, ...options, `${work}crds.ts`], { stdio: ["ignore", "pipe", "inherit"] });
} catch (error) {
  console.log(String(error.stdout).trim());
  faults += 1;
}
if (files.length === 0) {
  console.log("no object to judge");
  faults += 1;
}
if (faults === 0) console.log(`${files.length} objects fit the Prometheus operator's schemas, no unknown field`);
process.exit(faults === 0 ? 0 : 1);
