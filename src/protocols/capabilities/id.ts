/* What handlers need of the protocol; the codec is loaded when it is first used. */
export const capabilitiesId = '/rhiza/capabilities/1.0.0'

/** Of one protocol id. */
export const maxCapabilities = 32
export const maxCapabilityBytes = 64
export const maxAnswerBytes = 32 * 1024
