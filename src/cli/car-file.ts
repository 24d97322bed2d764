/* Where the commands that make a CAR write it: a file that is there whole or not at all, or standard output. */
import { open as openFile, rename, rm } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { writeCar } from '../ipld/car.ts'
import type { CID } from '../ipld/cid.ts'
import type { BlockPair } from '../store/blocks.ts'
import { storing, temporaryName } from '../store/durable.ts'
import { UsageError, type OptionSpecs, type OptionValues } from './args.ts'
import type { Output } from './output.ts'

export const outputOption = {
  output: { type: 'string', short: 'o', value: 'FILE', help: 'where to (default standard output)' },
} as const satisfies OptionSpecs

/** The path of `-o`; undefined for standard output, which must be no terminal. */
export function carTarget({ output }: OptionValues): string | undefined {
  if (typeof output === 'string' && output !== '-') return resolve(output)
  if (process.stdout.isTTY) throw new UsageError('a CAR is nothing for a terminal: want -o FILE, or > FILE')
  return undefined
}

/** What is gathered for one write. */
const writeBytes = 1024 * 1024
const writeChunks = 512

/** Writes a file that is there whole or not at all; a CAR that is cut between two sections would look whole. */
async function writeWhole(path: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const temporary = join(dirname(path), temporaryName())
  const file = await storing(path, () => openFile(temporary, 'wx'))
  try {
    try {
      const waiting: Uint8Array[] = []
      let size = 0
      const flush = async (): Promise<void> => {
        if (size > 0) await storing(path, () => file.writev(waiting))
        waiting.length = size = 0
      }
      for await (const chunk of chunks) {
        waiting.push(chunk)
        size += chunk.length
        if (size >= writeBytes || waiting.length >= writeChunks) await flush()
      }
      await flush()
      await storing(path, () => file.sync())
    } finally {
      await file.close()
    }
    await storing(path, () => rename(temporary, path))
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

/** Blocks are drawn as they are written. */
export async function writeCarTo(
  target: string | undefined,
  out: Output,
  root: CID,
  blocks: AsyncIterable<BlockPair>,
): Promise<void> {
  const car = writeCar([root], blocks)
  if (target === undefined) for await (const chunk of car) await out.write(chunk)
  else await writeWhole(target, car)
}
