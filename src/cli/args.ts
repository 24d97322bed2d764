/* Commands as data: their options are parsed with node:util parseArgs, their help is made from the same table. */
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { Output } from './output.ts'

export interface OptionSpec {
  type: 'string' | 'boolean'
  short?: string
  multiple?: boolean
  /** Stands for the value in the help: `--peer MULTIADDR`. */
  value?: string
  help: string
}

export type OptionSpecs = Readonly<Record<string, OptionSpec>>
export type OptionValues = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>

export interface Context {
  args: readonly string[]
  options: OptionValues
  out: Output
  /** Ctrl-C, SIGTERM. */
  signal: AbortSignal
  repoPath: string
  timeoutMs: number
  peers: readonly string[]
}

export interface Command {
  name: string
  summary: string
  /** What follows the name: `[-r] PATH...`. */
  usage: string
  /** Paragraphs of the command's own help: examples, notes. */
  more?: string
  options: OptionSpecs
  /** Arguments that there must be at least and at most. */
  arity: readonly [number, number]
  run(context: Context): Promise<void>
}

export const commonOptions = {
  repo: { type: 'string', value: 'DIR', help: 'where blocks and identity lie (default RHIZA_PATH, else ~/.rhiza)' },
  json: { type: 'boolean', help: 'one JSON object a line, for programs; errors too' },
  trace: {
    type: 'boolean',
    help: 'what happens on the network, as lines of JSON on standard error (or RHIZA_TRACE=1)',
  },
  help: { type: 'boolean', short: 'h', help: 'show this text' },
} as const satisfies OptionSpecs

/** What peers get to take our goodbye: a user who has the file, or pressed Ctrl-C, waits for nobody. */
export const stopTimeoutMs = 1_000

export const networkOptions = {
  peer: {
    type: 'string',
    multiple: true,
    value: 'MULTIADDR',
    help: 'ask this peer; repeatable: /ip4/127.0.0.1/tcp/4001/p2p/12D3Koo...',
  },
  timeout: {
    type: 'string',
    value: 'TIME',
    help: 'give up after so long: 500ms, 30s, 5m (default 30s without progress)',
  },
} as const satisfies OptionSpecs

/** The caller's own mistake: told with a hint at the help. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  readonly code = 'usage'
}

const units: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

/** Milliseconds of `30s`, `500ms`, `2m`, `1h`; a bare number is seconds. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text)
  const ms = match === null ? Number.NaN : Number(match[1]) * (units[match[2] ?? 's'] ?? Number.NaN)
  if (!(ms > 0)) throw new UsageError(`${JSON.stringify(text)} is not a time: want 500ms, 30s, 5m or 1h`)
  return ms
}

const sizeUnits: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
}

/** Bytes of `1000`, `64KiB`, `1.5GiB`. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMGT]iB|B|)$/.exec(text)
  const bytes = match === null ? Number.NaN : Number(match[1]) * (sizeUnits[match[2] ?? ''] ?? Number.NaN)
  if (Number.isSafeInteger(bytes)) return bytes
  throw new UsageError(`${JSON.stringify(text)} is not a size: want 1000, 64KiB, 10MiB or 1GiB`)
}

/** `rhiza --repo DIR id` is `rhiza id --repo DIR`: options that hold everywhere may stand before the command, too. */
export function commandFirst(argv: readonly string[], groups: ReadonlySet<string> = new Set()): string[] {
  let at = 0
  while (
    argv[at] === '--json' ||
    argv[at] === '--trace' ||
    argv[at] === '--repo' ||
    argv[at]?.startsWith('--repo=') === true
  )
    at += argv[at] === '--repo' ? 2 : 1
  const words = groups.has(argv[at] ?? '') ? 2 : 1
  return [...argv.slice(at, at + words), ...argv.slice(0, at), ...argv.slice(at + words)]
}

/** `text` if it can be a multiaddr: here a bare peer id leads nowhere. */
export function multiaddrOf(what: string, text: string): string {
  if (text.startsWith('/')) return text
  throw new UsageError(`${what} ${JSON.stringify(text)}: want an address as /ip4/127.0.0.1/tcp/4001/p2p/12D3Koo...`)
}

export interface Parsed {
  args: string[]
  options: OptionValues
}

/** Throws UsageError on what the command does not know. */
export function parse(command: Command, argv: readonly string[]): Parsed {
  const specs: OptionSpecs = { ...commonOptions, ...command.options }
  const options = Object.fromEntries(
    Object.entries(specs).map(([name, { type, short, multiple }]) => [
      name,
      { type, ...(short !== undefined && { short }), ...(multiple !== undefined && { multiple }) },
    ]),
  )
  try {
    const { values, positionals } = parseArgs({ args: [...argv], options, allowPositionals: true, strict: true })
    return { args: positionals, options: values }
  } catch (error) {
    const [line = ''] = (error instanceof Error ? error.message : String(error)).split(/\.?[ \n]*\n|\. /)
    const hint = /^Unknown option '-[^-]/.test(line) ? ' (before names that begin with a dash goes --)' : ''
    throw new UsageError(`${line}${hint}; see rhiza ${command.name} --help`)
  }
}

export function checkArity(command: Command, args: readonly string[]): void {
  const [least, most] = command.arity
  if (args.length >= least && args.length <= most) return
  throw new UsageError(`usage: rhiza ${command.name} ${command.usage}; see rhiza ${command.name} --help`)
}

export function repoPathOf(options: OptionValues): string {
  const given = options['repo']
  if (given === '') throw new UsageError('--repo "": want a directory')
  if (typeof given === 'string') return resolve(given)
  const { RHIZA_PATH: path = '' } = process.env
  return path === '' ? join(homedir(), '.rhiza') : resolve(path)
}

/** A string option that may be given several times. */
export function listOf(options: OptionValues, name: string): string[] {
  const value = options[name]
  return Array.isArray(value) ? value.filter((v) => typeof v === 'string') : typeof value === 'string' ? [value] : []
}

function optionLines(specs: OptionSpecs): string {
  const rows = Object.entries(specs).map(([name, spec]) => {
    const left = `${spec.short === undefined ? '    ' : `-${spec.short}, `}--${name}${spec.value === undefined ? '' : ` ${spec.value}`}`
    return [left, spec.help] as const
  })
  const width = Math.max(...rows.map(([left]) => left.length))
  return rows.map(([left, help]) => `  ${left.padEnd(width)}  ${help}`).join('\n')
}

export function commandHelp(command: Command): string {
  return [
    `rhiza ${command.name} ${command.usage}`.trimEnd(),
    '',
    command.summary,
    ...(command.more === undefined ? [] : ['', command.more]),
    '',
    'Options:',
    optionLines({ ...command.options, ...commonOptions }),
    '',
  ].join('\n')
}

/** A longer usage has a line of its own: it would push what all the others say off the screen. */
const leftColumns = 36

export function generalHelp(commands: readonly Command[], version: string): string {
  const lefts = commands.map((c) => `${c.name} ${c.usage}`.trimEnd())
  const width = Math.max(...lefts.map((left) => left.length).filter((length) => length <= leftColumns))
  return [
    `rhiza ${version}: exchange content with IPFS peers`,
    '',
    'Usage: rhiza COMMAND [ARGUMENTS] [OPTIONS]',
    '',
    ...commands.map(({ summary }, i) => {
      const left = lefts[i] ?? ''
      return left.length <= width
        ? `  ${left.padEnd(width)}  ${summary}`
        : `  ${left}\n${' '.repeat(width + 4)}${summary}`
    }),
    '',
    'Options everywhere:',
    optionLines({ ...commonOptions, version: { type: 'boolean', help: 'print the version' } }),
    '',
    'rhiza COMMAND --help tells more.',
    '',
  ].join('\n')
}
