const dark = matchMedia("(prefers-color-scheme: dark)");
const plots = [...document.querySelectorAll(".plot")].map((plot) => [
  plot.querySelector(".canvas"),
  JSON.parse(plot.querySelector("script").textContent),
]);

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, rule] = ["--ink", "--rule"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: rule, zerolinecolor: rule, linecolor: rule };
  return {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: "system-ui, sans-serif" },
    xaxis: { ...layout.xaxis, ...axis },
    yaxis: { ...layout.yaxis, ...axis },
  };
}

function draw() {
  for (const [canvas, { data, layout }] of plots) {
    Plotly.react(canvas, data, themed(layout), { displayModeBar: false });
  }
}

draw();
const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => Plotly.Plots.resize(target)));
plots.forEach(([canvas]) => sizes.observe(canvas));
dark.addEventListener("change", draw);
