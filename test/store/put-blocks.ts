/* A process of its own for the disk tests: puts blocks of pseudo-random sizes and prints each CID that is acknowledged. */
import { writeSync } from 'node:fs'
import { FakeRandom } from '../../src/env.ts'
import { cidOf } from '../../src/ipld/cid.ts'
import type { BlockPair } from '../../src/store/blocks.ts'
import { openDiskBlocks } from '../../src/store/disk-blocks.ts'

const [path = '', seed = '1', count = '0'] = process.argv.slice(2)
const random = new FakeRandom(Number(seed))

function block(): BlockPair {
  // Large ones take long enough to be killed in the middle.
  const bytes = new Uint8Array(Math.floor(random.unit() * (random.unit() < 0.1 ? 2_000_000 : 5000)))
  bytes.set(random.bytes(Math.min(bytes.length, 16)))
  return { cid: cidOf(0x55, bytes), bytes }
}

function acknowledge(pairs: BlockPair[]): void {
  writeSync(1, pairs.map(({ cid }) => `${cid}\n`).join(''))
}

try {
  const store = await openDiskBlocks(path)
  for (let done = 0; done < Number(count); done += 6) {
    const group = [block(), block(), block()]
    const alone = [block(), block(), block()]
    await Promise.all([
      store.putMany(group).then(() => acknowledge(group)),
      ...alone.map((pair) => store.put(pair.cid, pair.bytes).then(() => acknowledge([pair]))),
    ])
  }
  await store.close()
} catch (error) {
  const { code, message } = error as { code?: string; message: string }
  writeSync(1, `${code}: ${message}\n`)
}
