/* Apart from the codec, which is loaded when it is first used. */
export const capabilitiesId = '/rhiza/capabilities/1.0.0'
