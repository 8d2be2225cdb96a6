import { expect, it } from 'vitest';
import { SimClock } from '../../machine/work.ts';
import { RateLimit } from './rate-limit.ts';

it('lets ten through, then none until five seconds are over', () => {
  const clock = new SimClock();
  const limit = new RateLimit(clock);
  const take = (count: number): number => Array.from({ length: count }, () => limit.allows()).filter(Boolean).length;
  expect(take(25)).toBe(10);
  clock.advance(4.9e9);
  expect(take(5)).toBe(0);
  clock.advance(0.1e9);
  expect(take(3)).toBe(3);
  expect(limit.takeMissed()).toBe(20);
  expect(limit.takeMissed()).toBe(0);
});
