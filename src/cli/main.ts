#!/usr/bin/env node
/* The bin: refuses a Node that is too old before anything newer is loaded. */

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < 22 || (major === 22 && minor < 13)) {
  process.stderr.write(`rhiza: needs Node 22.13 or newer, this is ${process.versions.node}\n`)
  process.exitCode = 1
} else {
  // npm run changes to the package's folder; paths are meant from where the user stands.
  const { INIT_CWD: from, npm_lifecycle_event: script } = process.env
  if (script === 'start' && from !== undefined) process.chdir(from)
  void import('./run.ts').then(({ run }) => run(process.argv.slice(2)))
}
