/* The selector fixtures of ipld/ipld (testmark): data, selector, and every node that is visited, in order. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { codec } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import { type IpldNode, kindOf } from '../../src/ipld/model.ts'
import { parseSelector, printSelector, selectorFromBytes, selectorToBytes } from '../../src/ipld/selector-parse.ts'
import { walk } from '../../src/ipld/walk.ts'
import { sharedVectors } from '../vectors.ts'
import { Dag } from './dag.ts'

/** The code blocks behind `[testmark]:# (name)` lines, by name. */
function hunks(text: string): Map<string, string> {
  const marks = /^\[testmark\]:# \(([^)]+)\)\n```[a-z]*\n([\s\S]*?)\n```/gm
  return new Map([...text.matchAll(marks)].map(([, name = '', body = '']) => [name, body]))
}

function json(text: string): IpldNode {
  return codecs.byName('json')?.decode(fromUtf8(text)) ?? null
}

const files = ['selector-fixtures-1.md', 'selector-fixtures-recursion.md'].flatMap(
  (name) => sharedVectors(`selectors/${name}`) ?? [],
)
const fixtures = files.flatMap((file) => {
  const found = hunks(readFileSync(file, 'utf8'))
  return [...found.keys()]
    .filter((name) => name.endsWith('/data'))
    .map((name) => {
      const [title = ''] = name.split('/')
      const hunk = (part: string) => found.get(`${title}/${part}`) ?? ''
      return { title, data: hunk('data'), selector: hunk('selector'), visits: hunk('expect-visit') }
    })
})

describe.skipIf(files.length === 0)('selector fixtures', () => {
  it('are all there', () => {
    expect(fixtures.map(({ title }) => title)).toHaveLength(10)
  })

  it.each(fixtures)('$title', ({ data, selector, visits }) => {
    const dag = new Dag()
    const root = dag.put(json(data), codec.dagJson)
    const parsed = parseSelector(json(selector))
    const seen: unknown[] = []
    const steps = walk(root, parsed, { visits: true })
    for (let step = steps.next(); step.done !== true;) {
      const { value } = step
      if (value.kind === 'match' || value.kind === 'visit') {
        const node = value.node as IpldNode
        const kind = kindOf(node)
        const shown = kind === 'map' || kind === 'list' ? null : node
        seen.push({ path: value.path.join('/'), node: { [kind]: shown }, matched: value.kind === 'match' })
      }
      step = steps.next(value.kind === 'load' ? dag.get(value.cid) : undefined)
    }
    expect(seen).toEqual(visits.split('\n').map((line) => json(line)))
  })

  it.each(fixtures)('$title: the selector is printed as it was read, in both forms', ({ selector }) => {
    const declared = json(selector)
    expect(printSelector(parseSelector(declared))).toEqual(declared)
    expect(printSelector(parseSelector({ selector: declared }), { envelope: true })).toEqual({ selector: declared })
    const bytes = selectorToBytes(parseSelector(declared))
    expect(selectorToBytes(selectorFromBytes(bytes))).toEqual(bytes)
  })
})
