// Runs words in CPython compiled to WebAssembly: node pyodide.mjs PACKAGE_FOLDER WHEELS_FOLDER ROOT WORDS...
// Nothing is downloaded: PACKAGE_FOLDER is npm's `pyodide`, every wheel of WHEELS_FOLDER is unpacked.
import { pathToFileURL } from "node:url";
import { writeSync } from "node:fs";
import path from "node:path";

const [home, wheels, root, ...words] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(path.join(home, "pyodide.mjs")).href);
const python = await loadPyodide();
python.setStdout({ write: (bytes) => writeSync(1, bytes) });
python.setStderr({ write: (bytes) => writeSync(2, bytes) });
python.mountNodeFS("/wheels", path.resolve(wheels));
python.FS.mkdirTree("/root");
python.mountNodeFS("/root", path.resolve(root));
python.globals.set("words", python.toPy(words));
process.exit(python.runPython(`
import glob, importlib, os, runpy, sys, zipfile
for wheel in glob.glob("/wheels/*.whl"):
    zipfile.ZipFile(wheel).extractall("/site")
sys.path.insert(0, "/site")
os.chdir("/root")
importlib.invalidate_caches()
sys.argv = words
try:
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    code = 0
except SystemExit as end:
    code = end.code or 0
code
`));
