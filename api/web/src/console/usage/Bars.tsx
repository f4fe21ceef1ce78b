import { useId } from "react";

interface Bar {
  name: string;
  value: number;
}

const WIDE = 640;
const HIGH = 140;
const FOOT = 28;
const HEAD = 26;

/** A bar for each day, with its scale; the same as a table for those who do not see it. */
export function Bars({ title, unit, bars, write }: { title: string; unit: string; bars: readonly Bar[]; write: (value: number) => string }) {
  const id = useId();
  const most = Math.max(...bars.map((bar) => bar.value));
  const step = WIDE / bars.length;
  const every = Math.ceil(bars.length / 6);
  return (
    <figure className="bars">
      <figcaption id={id}>{title}</figcaption>
      <svg viewBox={`0 0 ${WIDE} ${HEAD + HIGH + FOOT}`} aria-hidden="true">
        <line className="bars-line" x1="0" x2={WIDE} y1={HEAD} y2={HEAD} />
        <line className="bars-line" x1="0" x2={WIDE} y1={HEAD + HIGH} y2={HEAD + HIGH} />
        <text x="0" y={HEAD - 4}>
          {write(most)}
        </text>
        {bars.map((bar, index) => {
          const high = most > 0 ? (bar.value / most) * HIGH : 0;
          return (
            <g key={bar.name}>
              <rect
                className="bars-bar"
                x={index * step + step * 0.12}
                width={step * 0.76}
                y={HEAD + HIGH - high}
                height={high}
                rx={Math.min(3, step * 0.2)}
              >
                <title>{`${bar.name}: ${write(bar.value)}`}</title>
              </rect>
              {index % every === 0 && (
                <text x={index * step + step / 2} y={HEAD + HIGH + 20} textAnchor={index === 0 ? "start" : "middle"}>
                  {bar.name.slice(5)}
                </text>
              )}
            </g>
          );
        })}
      </svg>
      <table className="visually-hidden" aria-labelledby={id}>
        <thead>
          <tr>
            <th scope="col">Day</th>
            <th scope="col">{unit}</th>
          </tr>
        </thead>
        <tbody>
          {bars
            .filter((bar) => bar.value > 0)
            .map((bar) => (
              <tr key={bar.name}>
                <th scope="row">{bar.name}</th>
                <td>{write(bar.value)}</td>
              </tr>
            ))}
        </tbody>
      </table>
    </figure>
  );
}
