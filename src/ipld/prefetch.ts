/*
 * Blocks ahead of a walk that goes everywhere, depth first and once (selectors.all, visitOnce): what it will ask for next
 * is what the blocks so far link to, so these are loaded while it still works on the one in front.
 */
import { hash, type CID } from './cid.ts'
import { codecs as standard, type Codecs } from './codecs.ts'
import { isLink, isList, isMap, keysOf, type IpldNode } from './model.ts'

export interface PrefetchOptions {
  load: (cid: CID) => Promise<Uint8Array>
  codecs?: Pick<Codecs, 'get'>
  /** Blocks under way at most; with 2 MiB each that is the memory. Default 16. */
  window?: number
}

/** How far it looks for something to load behind what is there already. */
const lookAt = 64

/** All links of a node, in its order; those of identity CIDs are no blocks to load. */
export function linksOf(root: IpldNode): CID[] {
  const links: CID[] = []
  const stack: IpldNode[] = [root]
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    if (typeof node !== 'object' || node === null || node instanceof Uint8Array) continue
    if (isLink(node)) {
      if (node.multihash.code !== hash.identity) links.push(node)
    } else if (isList(node)) {
      for (let i = node.length - 1; i >= 0; i--) stack.push(node[i] as IpldNode)
    } else if (isMap(node)) {
      const keys = keysOf(node)
      for (let i = keys.length - 1; i >= 0; i--) stack.push(node[keys[i] as string] as IpldNode)
    }
  }
  return links
}

/** A `load` that is one for the walk, and loads ahead. What was loaded ahead and not asked for is left to its own end. */
export function prefetching({ load, codecs = standard, window = 16 }: PrefetchOptions): PrefetchOptions['load'] {
  /** The nearest last. */
  const next: CID[] = []
  const given = new Set<string>()
  const underWay = new Map<string, Promise<Uint8Array>>()

  function fill(): void {
    while (given.has(String(next.at(-1)))) next.pop()
    for (let i = next.length - 1; i >= Math.max(0, next.length - lookAt) && underWay.size < window; i--) {
      const cid = next[i] as CID
      const key = String(cid)
      if (given.has(key) || underWay.has(key)) continue
      const bytes = load(cid)
      // Seen when its turn comes; until then it must not count as unhandled.
      bytes.catch(() => undefined)
      underWay.set(key, bytes)
    }
  }

  return async (cid) => {
    const key = String(cid)
    const bytes = await (underWay.get(key) ?? load(cid))
    underWay.delete(key)
    given.add(key)
    const codec = codecs.get(cid.code)
    if (codec !== undefined) for (const link of linksOf(codec.decode(bytes)).toReversed()) next.push(link)
    fill()
    return bytes
  }
}
