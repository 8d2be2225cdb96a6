/** Arbitraries of calls: one for each request, with the values that it takes. */
import * as u from 'belfry/uapi';
import fc from 'fast-check';

const UAPI = { ...u };
/** Fields whose bytes are not changed at random: what they would name is different on two kernels, or nobody's memory. */
const DELICATE =
  /^(vaddr|user_va|.*_uptr|.*_ptr|allowed_iovas|data|fd|iommufd|length|size|argsz|data_len|num_iovas|count|entry_len|entry_num)$/;

const open = (as, path) => fc.constant({ op: 'open', as, path });
const close = (fd) => fc.constant({ op: 'close', fd });

/** A request by value. */
export const plain = (request, fd, value, more = {}) =>
  fc.record({ op: fc.constant('ioctl'), fd, value, ...constants({ request }), ...constants(more) });

/** A request with a struct. `fields` are arbitraries or constants; `more` is of the call. */
export function ask(request, fd, struct, fields, more = {}) {
  const call = fc.record({
    op: fc.constant('ioctl'),
    fd,
    ...constants({ request }),
    struct: fc.constant(struct),
    fields: fc.record(constants(fields)),
    ...constants(more),
  });
  if (more.raw !== undefined) return call;
  const changed = fc.tuple(call, raw(struct)).map(([one, bytes]) => ({ ...one, raw: bytes }));
  return fc.oneof({ weight: 30, arbitrary: call }, { weight: 1, arbitrary: changed });
}

const constants = (record) =>
  Object.fromEntries(
    Object.entries(record).map(([name, value]) => [name, isArbitrary(value) ? value : fc.constant(value)]),
  );
const isArbitrary = (value) => typeof value?.generate === 'function';

/** One to three bytes of the struct or behind it. */
function raw(struct) {
  const { layout, size } = UAPI[struct];
  const delicate = layout.filter(({ name }) => DELICATE.test(name));
  const within = ({ offset, field }, at) => at >= offset && at < offset + field.size;
  const places = Array.from({ length: size + 8 }, (_, at) => at).filter(
    (at) => !delicate.some((placement) => within(placement, at)),
  );
  if (UAPI[struct].tailName !== null) places.splice(places.indexOf(size), 8);
  if (places.length === 0) return fc.constant([]);
  const byte = fc.oneof(fc.constantFrom(0, 1, 0x80, 0xff), fc.nat({ max: 255 }));
  return fc.array(fc.tuple(fc.constantFrom(...places), byte), { minLength: 1, maxLength: 3 });
}

export { close, open };
