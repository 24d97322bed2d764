/* Scores that go-libp2p-pubsub worked out from the same events. */
import { describe, expect, it } from 'vitest'
import type { ScoreParams, TopicScoreParams } from '../../../src/protocols/gossipsub/score-params.ts'
import { PeerScore } from '../../../src/protocols/gossipsub/score.ts'
import { specCases } from '../../vectors.ts'

interface Case {
  params: ScoreParams & { topics: Record<string, TopicScoreParams> }
  appSpecificScores: Record<string, number>
  events: [at: number, what: string, ...(string | number | string[])[]][]
  scores: number[][]
}

function play(score: PeerScore, topics: string[], [at, what, ...args]: Case['events'][number]): void {
  const [a = '', b = '', c = ''] = args as string[]
  const topic = topics[Number(what === 'graft' || what === 'prune' || what === 'invalid' ? a : b)] ?? ''
  switch (what) {
    case 'add':
    case 'remove':
      return score[what](a, at)
    case 'setIps':
      return score.setIps(a, args[1] as string[])
    case 'graft':
      return score.graft(b, topic, at)
    case 'prune':
    case 'invalid':
      return score[what](b, topic)
    case 'validating':
    case 'ignored':
    case 'throttled':
      return score[what](a, at)
    case 'duplicate':
    case 'delivered':
    case 'rejected':
      return score[what](a, topic, c, at)
    case 'penalize':
      return score.penalize(a, Number(b))
    case 'refresh':
      return score.refresh(at)
  }
  throw new Error(what)
}

describe('the peer score', () => {
  const cases = specCases('gossipsub/score-go.json') as Case[]

  it.each(cases.map((one, i) => [i, Object.keys(one.params.topics)[0] ?? '', one] as const))(
    'is that of go after every refresh: log %i, %s',
    (_, __, { params, appSpecificScores, events, scores }) => {
      const score = new PeerScore({ ...params, appSpecificScore: (peer) => appSpecificScores[peer] ?? 0 })
      const topics = Object.keys(params.topics)
      const ours: number[][] = []
      for (const event of events) {
        play(score, topics, event)
        if (event[1] === 'refresh') ours.push(['p', 'q', 'r'].map((peer) => score.score(peer, event[0])))
      }
      expect(ours).toHaveLength(scores.length)
      for (const [i, theirs] of scores.entries())
        for (const [j, value] of theirs.entries())
          expect(Math.abs((ours[i]?.[j] ?? Number.NaN) - value)).toBeLessThanOrEqual(
            1e-9 * Math.max(1, Math.abs(value)),
          )
    },
  )

  it('is compared where it says something', () => {
    const all = cases.flatMap((one) => one.scores.flat())
    expect(all.length).toBeGreaterThan(500)
    expect(all.filter((score) => score !== 0).length).toBeGreaterThan(all.length / 2)
  })
})
