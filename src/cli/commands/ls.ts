import type { Command } from '../args.ts'
import { printable } from '../output.ts'
import { reading, readingOptions } from '../reading.ts'

export const ls: Command = {
  name: 'ls',
  summary: 'list a directory: CID, size, name',
  usage: 'CID[/PATH]',
  options: readingOptions,
  arity: [1, 1],
  async run(context) {
    await reading(context, async (kit, fetch) => {
      for await (const { name, cid, size, type } of kit.ls(context.args[0] ?? '', fetch)) {
        const shown = `${printable(name)}${type === 'directory' ? '/' : ''}`
        await context.out.result(
          { name, cid: cid.toString(), size, type },
          `${cid} ${type === 'directory' ? '-' : size} ${shown}`,
        )
      }
    })
  },
}
