import { basename, resolve } from 'node:path'
import { writeTo } from '../../unixfs/export-disk.ts'
import { parsePath } from '../../unixfs/path.ts'
import { UsageError, type Command } from '../args.ts'
import { formatBytes, printable } from '../output.ts'
import { reading, readingOptions } from '../reading.ts'

export const get: Command = {
  name: 'get',
  summary: 'write a file or a directory to disk',
  usage: 'CID[/PATH] [-o PATH]',
  more: [
    'What is fetched stays in the repo: a get that was interrupted goes on where it was.',
    'Names that would leave the target are refused.',
  ].join('\n'),
  options: {
    ...readingOptions,
    output: {
      type: 'string',
      short: 'o',
      value: 'PATH',
      help: 'where to (default the last name of the path, or the CID)',
    },
  },
  arity: [1, 1],
  async run(context) {
    const { args, options, out, signal } = context
    const from = args[0] ?? ''
    if (options['output'] === '-') throw new UsageError('get writes files; for standard output there is rhiza cat')
    const { cid, segments } = parsePath(from)
    const target = resolve(
      typeof options['output'] === 'string' ? options['output'] : basename(segments.at(-1) ?? cid.toString()),
    )
    await reading(context, async (kit, fetch) => {
      const progress = out.progress('fetching')
      try {
        const written = await writeTo(target, kit.walk(from, fetch), {
          signal,
          onProgress: (bytes) => progress.add(bytes),
          // Of a directory it is what the links claim, nodes included: far from the bytes written when files are small.
          onTotal: (t, type) => (type === 'file' ? progress.total(t) : undefined),
        })
        progress.done()
        await out.result(
          { path: target, cid: written.cid.toString(), size: written.size, files: written.files },
          `${printable(target)}  ${written.files} ${written.files === 1 ? 'file' : 'files'}, ${formatBytes(written.size)}`,
        )
      } finally {
        progress.done()
      }
    })
  },
}
