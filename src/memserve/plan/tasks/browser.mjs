// Writes what the memory of Python holds once the planner has answered: the page begins there.  node browser.mjs FOLDER
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";

const folder = process.argv[2];
const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide/pyodide.mjs`));
const python = await loadPyodide({ indexURL: `${folder}/pyodide/`, _makeSnapshot: true });
python.unpackArchive(new Uint8Array(readFileSync(`${folder}/memserve.zip`)).buffer, "zip", { extractDir: "/memserve" });
python.runPython(`
import sys
sys.path.insert(0, "/memserve")
from memserve.plan.tasks import browser
browser.names()
browser.answer('["llama-70b", "--gpus", "4xV100"]')
`);
writeFileSync(`${folder}/memory.gz`, gzipSync(python.makeMemorySnapshot()));
