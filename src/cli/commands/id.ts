import { openRepo } from '../../store/repo.ts'
import { version } from '../../version.ts'
import type { Command } from '../args.ts'

export const id: Command = {
  name: 'id',
  summary: "print this repo's peer id, making the repo and its identity on first use",
  usage: '',
  options: {},
  arity: [0, 0],
  async run({ out, repoPath }) {
    const repo = await openRepo(repoPath)
    try {
      const { publicKey } = await repo.identity()
      const { peerId } = publicKey
      const record = {
        peerId: peerId.toString(),
        cid: peerId.toCid(),
        keyType: publicKey.type,
        agent: `rhiza/${version}`,
        repo: repoPath,
      }
      await out.result(record, record.peerId)
    } finally {
      await repo.close()
    }
  },
}
