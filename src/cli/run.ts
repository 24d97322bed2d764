/* Finds the command, runs it, and turns whatever it throws into one line and an exit code of 0 or 1. */
import { traceProcess } from '../env.ts'
import { errorCode } from '../errors.ts'
import { traceLine } from '../trace.ts'
import { version } from '../version.ts'
import {
  UsageError,
  checkArity,
  commandFirst,
  commandHelp,
  generalHelp,
  listOf,
  multiaddrOf,
  parse,
  parseDuration,
  repoPathOf,
  type Command,
} from './args.ts'
import { add } from './commands/add.ts'
import { cat } from './commands/cat.ts'
import { dag } from './commands/dag.ts'
import { dht } from './commands/dht.ts'
import { get } from './commands/get.ts'
import { graph } from './commands/graph.ts'
import { id } from './commands/id.ts'
import { key } from './commands/key.ts'
import { ls } from './commands/ls.ts'
import { name as names } from './commands/name.ts'
import { perf } from './commands/perf.ts'
import { ping } from './commands/ping.ts'
import { pubsub } from './commands/pubsub.ts'
import { routing } from './commands/routing.ts'
import { serve } from './commands/serve.ts'
import { Output } from './output.ts'

const commands: readonly Command[] = [
  id,
  add,
  cat,
  get,
  ls,
  serve,
  ping,
  perf,
  ...routing,
  ...names,
  ...key,
  ...dag,
  ...graph,
  ...dht,
  ...pubsub,
]
/** First words of commands of two: `key` of `key gen`. */
const groups = new Set(commands.flatMap(({ name }) => (name.includes(' ') ? [name.split(' ')[0] ?? ''] : [])))

/** From an interrupt to the end at the latest; a second interrupt ends at once. */
const endWithinMs = 3_000

/** The reason of an interrupt; commands that run until told to stop end well with it. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
}

const systemCodes: Readonly<Record<string, string>> = {
  ENOENT: 'not-found',
  EACCES: 'not-permitted',
  EPERM: 'not-permitted',
  ENOSPC: 'disk-full',
}
const systemTexts: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file or directory',
  ENOSPC: 'the disk is full, free some space or write elsewhere',
  EACCES: 'not permitted to read',
  EPERM: 'not permitted',
  EISDIR: 'is a directory',
}

/** The next step, where the error itself knows the cause alone: it does not know that it meets a user of the command. */
const hints: Readonly<Record<string, string>> = {
  'no-transport': 'want an address as /ip4/127.0.0.1/tcp/4001, for WebSocket with /ws behind it',
  'not-a-directory': 'rhiza cat writes a file, rhiza get fetches it',
  'not-a-file': 'rhiza ls lists a directory, rhiza get fetches it',
  timeout: 'check the address and that the peer runs, or wait longer with --timeout',
  'wrong-peer': 'check the /p2p part of the address',
}

/** What node:fs throws for a path that the user gave. */
function isSystemError(error: unknown): error is { code: string; path: string } {
  return (
    error instanceof Error && 'code' in error && 'path' in error && 'syscall' in error && typeof error.path === 'string'
  )
}

function report(out: Output, error: unknown): void {
  if (error instanceof Interrupted) out.error('interrupted', 'interrupted')
  else if (error instanceof UsageError) out.error('usage', error.message)
  else if (isSystemError(error))
    out.error(systemCodes[error.code] ?? 'io', `${systemTexts[error.code] ?? error.code}: ${error.path}`)
  else if (error instanceof Error) {
    const code = errorCode(error)
    const hint = hints[code ?? '']
    const message = hint === undefined ? error.message : `${error.message}; ${hint}`
    out.error(code ?? (error instanceof TypeError ? 'usage' : 'failed'), message)
  } else out.error('failed', String(error))
}

function commandOf(name: string): Command {
  const command = commands.find((c) => c.name === name)
  if (command !== undefined) return command
  const [first = ''] = name.split(' ')
  if (groups.has(first)) {
    const inside = commands.flatMap((c) => (c.name.startsWith(`${first} `) ? [c.name.slice(first.length + 1)] : []))
    throw new UsageError(`what of ${first}? want ${inside.join(', ')}; see rhiza ${first} --help`)
  }
  const all = commands.map((c) => c.name.split(' ')[0])
  const names = [...new Set(all)].join(', ')
  throw new UsageError(`there is no command ${JSON.stringify(name)}: want ${names}; see rhiza --help`)
}

/** Of a group it is the help of all in it. */
function helpOf(topic: string): string {
  if (!groups.has(topic)) return commandHelp(commandOf(topic))
  const inside = commands.filter((c) => c.name.startsWith(`${topic} `))
  return inside.map((command) => commandHelp(command)).join('\n')
}

async function dispatch(given: readonly string[], out: Output, signal: AbortSignal): Promise<void> {
  const [first, ...others] = commandFirst(given, groups)
  const two = groups.has(first ?? '') && others[0] !== undefined && !others[0].startsWith('-')
  const name = two ? `${first} ${others[0]}` : first
  const rest = two ? others.slice(1) : others
  if (name === undefined || name === '--json' || name === 'help' || name === '--help' || name === '-h') {
    const topic = rest.filter((word) => !word.startsWith('-')).join(' ')
    await out.write(topic === '' ? generalHelp(commands, version) : helpOf(topic))
    return
  }
  if (name === '--version' || name === 'version') {
    await out.result({ version }, version)
    return
  }
  if (groups.has(name) && (rest.includes('--help') || rest.includes('-h'))) {
    await out.write(helpOf(name))
    return
  }
  const command = commandOf(name)
  const { args, options } = parse(command, rest)
  if (options['help'] === true) {
    await out.write(commandHelp(command))
    return
  }
  checkArity(command, args)
  const { timeout } = options
  await command.run({
    args,
    options,
    out,
    signal,
    repoPath: repoPathOf(options),
    timeoutMs: typeof timeout === 'string' ? parseDuration(timeout) : 30_000,
    peers: listOf(options, 'peer').map((peer) => multiaddrOf('--peer', peer)),
  })
}

export async function run(argv: readonly string[]): Promise<void> {
  const out = new Output(argv.includes('--json'))
  const controller = new AbortController()
  let late: NodeJS.Timeout | undefined
  const interrupt = (): void => {
    if (controller.signal.aborted) process.exit(1)
    // Whoever neither reads our output nor answers the system call we are in must not keep us.
    late = setTimeout(() => {
      report(out, controller.signal.reason)
      process.exit(1)
    }, endWithinMs)
    controller.abort(new Interrupted('interrupted'))
  }
  if (argv.includes('--trace') || process.env['RHIZA_TRACE'] === '1') {
    traceProcess((what, fields) => out.trace(traceLine(what, fields, Date.now())))
  }
  process.on('SIGINT', interrupt)
  process.on('SIGTERM', interrupt)
  // A reader that went away (`rhiza cat ... | head`) is no error of ours.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0)
  })
  // Nobody is there to be told.
  process.stderr.on('error', () => {})
  try {
    await dispatch(argv, out, controller.signal)
  } catch (error) {
    report(out, error)
    process.exitCode = 1
  } finally {
    clearTimeout(late)
    process.off('SIGINT', interrupt)
    process.off('SIGTERM', interrupt)
    traceProcess(undefined)
  }
}
