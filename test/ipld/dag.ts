/* What the tests of selectors and walks share: a DAG in memory, and a walk that is run to its end. */
import { cidOf, type CID, codec } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import type { IpldNode } from '../../src/ipld/model.ts'
import { parseSelector } from '../../src/ipld/selector-parse.ts'
import type { Selector } from '../../src/ipld/selector.ts'
import { walk, type WalkOptions, type WalkSummary } from '../../src/ipld/walk.ts'

/** Blocks by the text of their CID. */
export class Dag {
  readonly blocks = new Map<string, Uint8Array>()

  put(node: IpldNode, code: number = codec.dagCbor): CID {
    const format = codecs.get(code)
    if (format === undefined) throw new Error(`no codec ${code}`)
    return this.putBytes(format.encode(node), code)
  }

  putBytes(bytes: Uint8Array, code: number = codec.raw): CID {
    const cid = cidOf(code, bytes)
    this.blocks.set(cid.toString(), bytes)
    return cid
  }

  get(cid: CID): Uint8Array | undefined {
    return this.blocks.get(cid.toString())
  }

  delete(cid: CID): void {
    this.blocks.delete(cid.toString())
  }
}

export function selectorOf(declared: IpldNode | Selector): Selector {
  return typeof declared === 'object' && declared !== null && 'explore' in declared
    ? (declared as Selector)
    : parseSelector(declared)
}

export interface Walked {
  /** `load CID path`, `missing CID path`, `match path kind label`, `visit path`, `bytes path offset length`, in order. */
  log: string[]
  loads: string[]
  matches: { path: string; node: unknown; label: string | undefined }[]
  /** What the bytes steps gave, by path. */
  bytes: Map<string, Uint8Array[]>
  summary: WalkSummary
}

/** Answers every load from the DAG. */
export function walked(dag: Dag, root: CID, selector: IpldNode | Selector, options: WalkOptions = {}): Walked {
  const out: Omit<Walked, 'summary'> = { log: [], loads: [], matches: [], bytes: new Map() }
  const steps = walk(root, selectorOf(selector), options)
  let step = steps.next()
  while (step.done !== true) {
    const { value } = step
    const path = value.path.join('/')
    switch (value.kind) {
      case 'load': {
        const bytes = dag.get(value.cid)
        out.loads.push(value.cid.toString())
        out.log.push(`${bytes === undefined ? 'missing' : 'load'} ${value.cid} ${path}`)
        step = steps.next(bytes ?? 'missing')
        continue
      }
      case 'match':
        out.matches.push({ path, node: value.node, label: value.label })
        out.log.push(`match ${path}`)
        break
      case 'visit':
        out.log.push(`visit ${path}`)
        break
      case 'bytes':
        out.log.push(`bytes ${path} ${value.offset} ${value.bytes.length}`)
        out.bytes.set(path, [...(out.bytes.get(path) ?? []), value.bytes])
        break
    }
    step = steps.next()
  }
  return { ...out, summary: step.value }
}
