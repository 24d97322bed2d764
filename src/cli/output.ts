/* What the commands print: results on stdout, everything else on stderr; names from elsewhere are made harmless. */

/** Control characters (C0, DEL, C1, line and bidi controls) as escapes, so that a name can't steer the terminal. */
export function printable(text: string): string {
  return text.replaceAll(controls, (c) => {
    const code = c.codePointAt(0) ?? 0
    if (c === '\n') return '\\n'
    if (c === '\t') return '\\t'
    if (c === '\r') return '\\r'
    return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`
  })
}

// oxlint-disable-next-line no-control-regex
const controls = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g

/** JSON.stringify leaves some controls as they are; escaped, the text is the same JSON. */
function json(value: unknown): string {
  return escaped(JSON.stringify(value))
}

/** The same JSON, without characters that steer a terminal. */
export function escaped(text: string): string {
  return text.replaceAll(controls, (c) => `\\u${(c.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`)
}

const steps = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

export function formatBytes(size: number): string {
  let step = 0
  while (size >= 1024 && step < steps.length - 1) {
    size /= 1024
    step++
  }
  return `${step === 0 ? size : size.toFixed(1)} ${steps[step]}`
}

export interface Progress {
  /** `blocks` are told beside the bytes where there are any. */
  add(bytes: number, blocks?: number): void
  /** Once known. */
  total(bytes: number): void
  done(): void
}

/** Milliseconds between two looks at the bar, and between two plain lines. */
const barEveryMs = 100
const lineEveryMs = 5_000

export class Output {
  readonly json: boolean

  constructor(json: boolean) {
    this.json = json
  }

  /** Resolves when stdout takes more. */
  write(data: string | Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      process.stdout.write(data, (error) => {
        if (error === null || error === undefined) resolve()
        else reject('path' in error ? error : Object.assign(error, { path: 'standard output' }))
      })
    })
  }

  /** A result: `record` with --json, else `text`. */
  result(record: Record<string, unknown>, text: string): Promise<void> {
    return this.write(`${this.json ? json(record) : text}\n`)
  }

  /** News for a human; nothing with --json. */
  note(text: string): void {
    if (!this.json) process.stderr.write(`${printable(text)}\n`)
  }

  error(code: string, message: string): void {
    const text = this.json ? json({ error: { code, message } }) : `rhiza: ${printable(message)}`
    process.stderr.write(`${text}\n`)
  }

  /** A line of JSON about the network. */
  trace(line: string): void {
    process.stderr.write(`${escaped(line)}\n`)
  }

  /** A bar on a terminal, a plain line now and then elsewhere, nothing with --json. */
  progress(what: string, total?: number): Progress {
    let size = 0
    let count = 0
    let goal = total
    let shownAt = Date.now()
    const startedAt = shownAt
    const terminal = process.stderr.isTTY
    const silent = this.json
    const line = (): string => {
      const rate = `${formatBytes(Math.round(size / Math.max(0.001, (Date.now() - startedAt) / 1000)))}/s`
      const blocks = count === 0 ? '' : `  ${count} ${count === 1 ? 'block' : 'blocks'}`
      if (goal === undefined || goal === 0) return `${what}${blocks}  ${formatBytes(size)}  ${rate}`
      const share = Math.min(1, size / goal)
      const filled = Math.round(share * 24)
      const bar = terminal ? `  [${'='.repeat(filled)}${' '.repeat(24 - filled)}]` : ''
      return `${what}${bar}  ${Math.floor(share * 100)}%  ${formatBytes(size)} of ${formatBytes(goal)}  ${rate}`
    }
    return {
      add(bytes, blocks = 0) {
        size += bytes
        count += blocks
        if (silent || Date.now() - shownAt < (terminal ? barEveryMs : lineEveryMs)) return
        shownAt = Date.now()
        process.stderr.write(terminal ? `\r\u001b[K${printable(line())}` : `${printable(line())}\n`)
      },
      total(bytes) {
        goal = bytes
      },
      done() {
        if (!silent && terminal) process.stderr.write('\r\u001b[K')
      },
    }
  }
}
