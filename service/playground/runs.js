/** COCO's compressed run lengths (cocoapi, `rleFrString`): column by column, not in it first. */

/** The run lengths in a string. */
function lengths(text) {
  const found = [];
  let value = 0;
  let shift = 0;
  for (const character of text) {
    const bits = character.charCodeAt(0) - 48;
    value |= (bits & 0x1f) << shift;
    shift += 5;
    if (bits & 0x20) continue;
    if (bits & 0x10) value |= -1 << shift;
    found.push(found.length > 2 ? value + found.at(-2) : value);
    value = shift = 0;
  }
  return found;
}

/** Class ids of `{size: [rows, columns], counts: {id: text}}` at `width` x `height`, by rows. */
export function labelsOf({ size, counts }, width, height) {
  const [rows, columns] = size;
  const whole = new Uint16Array(rows * columns);
  for (const [id, text] of Object.entries(counts)) {
    let at = 0;
    lengths(text).forEach((length, index) => {
      if (index % 2) whole.fill(id, at, at + length);
      at += length;
    });
  }
  const labels = new Uint16Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const row = Math.floor(((y + 0.5) * rows) / height);
    for (let x = 0; x < width; x += 1)
      labels[y * width + x] = whole[Math.floor(((x + 0.5) * columns) / width) * rows + row];
  }
  return labels;
}
