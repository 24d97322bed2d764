import { UsageError, type Command } from '../args.ts'
import { reading, readingOptions } from '../reading.ts'

function bytesOption(name: string, value: unknown): number | undefined {
  if (value === undefined) return undefined
  const size = Number(value)
  if (typeof value !== 'string' || !/^[0-9]+$/.test(value) || !Number.isSafeInteger(size))
    throw new UsageError(`--${name} ${JSON.stringify(value)}: want a whole number of bytes`)
  return size
}

export const cat: Command = {
  name: 'cat',
  summary: 'write a file to standard output',
  usage: 'CID[/PATH]',
  options: {
    ...readingOptions,
    offset: { type: 'string', value: 'N', help: 'leave out the first N bytes' },
    length: { type: 'string', value: 'N', help: 'at most N bytes' },
  },
  arity: [1, 1],
  async run(context) {
    const { args, options, out } = context
    const [offset, length] = [bytesOption('offset', options['offset']), bytesOption('length', options['length'])]
    await reading(context, async (kit, fetch) => {
      const part = { ...(offset !== undefined && { offset }), ...(length !== undefined && { length }) }
      const progress = process.stdout.isTTY ? undefined : out.progress('reading')
      try {
        for await (const chunk of kit.cat(args[0] ?? '', { ...fetch, ...part })) {
          await out.write(chunk)
          progress?.add(chunk.length)
        }
      } finally {
        progress?.done()
      }
    })
  },
}
