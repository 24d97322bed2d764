/* The walk against its slow plain twin, over random DAGs and selectors. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LimitError } from '../../src/errors.ts'
import { type CID, parseCid } from '../../src/ipld/cid.ts'
import type { Selector } from '../../src/ipld/selector.ts'
import { parseSelector, selectorFromBytes, selectorToBytes } from '../../src/ipld/selector-parse.ts'
import { walk } from '../../src/ipld/walk.ts'
import { dags, selectors } from './arbitrary-dag.ts'
import type { Dag } from './dag.ts'
import { plainWalk, shown, TooMuch } from './plain-walk.ts'

const maxNodes = 2000

function realWalk(dag: Dag, root: CID, selector: Selector, visitOnce: boolean): string[] {
  const log: string[] = []
  const steps = walk(root, selector, { visits: true, visitOnce, budget: { nodes: maxNodes, steps: Infinity } })
  for (let step = steps.next(); step.done !== true;) {
    const { value } = step
    const path = value.path.join('/')
    if (value.kind === 'load') {
      const bytes = dag.get(value.cid)
      log.push(`${bytes === undefined ? 'missing' : 'load'} ${value.cid} ${path}`)
      step = steps.next(bytes ?? 'missing')
      continue
    }
    if (value.kind === 'match') log.push(`match ${path} ${value.label ?? ''}${shown(value.node)}`)
    else log.push(`visit ${path}`)
    step = steps.next()
  }
  return log
}

function outcome(run: () => string[]): string[] | 'too much' {
  try {
    return run()
  } catch (error) {
    if (error instanceof TooMuch || (error instanceof LimitError && error.limit === 'nodes')) return 'too much'
    // Recursions that double at every step are ended before the twin would be done with them.
    fc.pre(!(error instanceof LimitError && error.limit === 'selectorWidth'))
    throw error
  }
}

describe('walk', () => {
  it('does what its plain twin does, in the same order', () => {
    let long = 0
    fc.assert(
      fc.property(
        dags.chain(({ dag, root }) => {
          const stops = [...dag.blocks.keys()].map((text) => parseCid(text))
          return fc.tuple(fc.constant({ dag, root }), selectors(stops), fc.boolean())
        }),
        ([{ dag, root }, declared, visitOnce]) => {
          const real = outcome(() => realWalk(dag, root, parseSelector(declared), visitOnce))
          const twin = outcome(() => plainWalk(dag, root, declared, { visitOnce, maxNodes }))
          if (real !== 'too much' && real.length > 8) long++
          expect(real).toEqual(twin)
        },
      ),
      { numRuns: 3000 },
    )
    // Most random selectors go nowhere; enough do not.
    expect(long).toBeGreaterThan(400)
  })

  it('does not differ after a selector went through its bytes', () => {
    fc.assert(
      fc.property(dags, selectors([]), ({ dag, root }, declared) => {
        const once = selectorFromBytes(selectorToBytes(parseSelector(declared)))
        const twice = selectorFromBytes(selectorToBytes(once))
        const first = outcome(() => realWalk(dag, root, once, false))
        expect(outcome(() => realWalk(dag, root, twice, false))).toEqual(first)
      }),
      { numRuns: 300 },
    )
  })
})
