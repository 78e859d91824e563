/** The plot of Figure 6 (Wei et al., CVPR 2019): channels along x, their mean alpha along y. */

// In units of the view box, 320 x 142.
const LEFT = 30;
const RIGHT = 316;
const TOP = 26;
const BOTTOM = 120;

/** The next number at or above `value` that looks well on an axis. */
export function axisTop(value) {
  if (value <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 3, 4, 5, 6, 8, 10].find((step) => step * unit >= value);
}

/**
 * Fills the plot's elements.
 *
 * `means` has one value a channel, `mean` is that of the whole stage, `top` ends the y axis.
 */
export function drawPlot(svg, means, mean, top) {
  const step = (RIGHT - LEFT) / means.length;
  const x = (channel) => LEFT + (channel + 0.5) * step;
  const y = (value) => BOTTOM - (value / top) * (BOTTOM - TOP);
  const part = (name) => svg.querySelector(`.${name}`);
  const level = (name, value) =>
    attributes(part(name), { x1: LEFT, x2: RIGHT, y1: y(value), y2: y(value) });
  const label = (name, left, baseline) => attributes(part(name), { x: left, y: baseline });

  level("top", top);
  level("half", top / 2);
  level("axis", 0);
  level("mean", mean);
  const bars = means.map(
    (value, channel) => `M${x(channel).toFixed(2)} ${BOTTOM}V${y(value).toFixed(2)}`,
  );
  attributes(part("channels"), { d: bars.join(""), "stroke-width": Math.min(10, step * 0.7) });
  label("y-top", LEFT - 5, y(top) + 4).textContent = number(top);
  label("y-half", LEFT - 5, y(top / 2) + 4).textContent = number(top / 2);
  label("y-zero", LEFT - 5, BOTTOM + 4);
  label("y-name", LEFT, TOP - 12);
  label("x-first", LEFT, BOTTOM + 18);
  label("x-name", (LEFT + RIGHT) / 2, BOTTOM + 18);
  label("x-last", RIGHT, BOTTOM + 18).textContent = means.length;

  const low = means.indexOf(Math.min(...means));
  const high = means.indexOf(Math.max(...means));
  svg.setAttribute(
    "aria-label",
    `Mean α of ${means.length} channels: lowest ${number(means[low])} in channel ${low + 1}, ` +
      `highest ${number(means[high])} in channel ${high + 1}, ${number(mean)} over all.`,
  );
}

/** A value of α in three digits at most. */
export function number(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

function attributes(element, values) {
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  return element;
}
