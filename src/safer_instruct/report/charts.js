"use strict";
// One function per kind of chart: from the data of a figure to the options of ECharts. Text reaches the canvas, or a text node; never markup.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const number = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
  // Okabe and Ito's colours, which colour-blind people can tell apart; groups differ in shape or pattern too.
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a5195", "#5b6570"];
  const DARK = ["#56b4e9", "#f0915a", "#3ec99a", "#e59ac2", "#e6c229", "#9fd2f5", "#b79ad6", "#a6afb9"];
  const SHAPES = ["circle", "triangle", "rect", "diamond", "pin", "roundRect", "arrow", "circle"];
  const LEAST_FLOW = 640; // pixels that a flow of five stages needs for its labels
  const FONT = getComputedStyle(document.body).fontFamily;

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    const dark = matchMedia("(prefers-color-scheme: dark)").matches && !matchMedia("print").matches;
    const names = ["ink", "dim", "line", "card", "prompt", "chosen", "rejected", "gap", "muted"];
    return { dark, palette: dark ? DARK : LIGHT, ...Object.fromEntries(names.map((name) => [name, get(name)])) };
  }

  /** A tooltip made of text nodes: a bold first line and the rest below. */
  function tip(head, ...lines) {
    const box = document.createElement("div");
    box.className = "tip";
    box.append(Object.assign(document.createElement("b"), { textContent: head }), lines.join("\n"));
    return box;
  }

  /** Black or white, whichever stands out more on a colour (WCAG's relative luminance). */
  function textOn(color) {
    const [r, g, b] = [1, 3, 5].map((at) => (parseInt(color.slice(at, at + 2), 16) / 255) ** 2.2);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#101418" : "#fff";
  }

  function common(t) {
    return {
      animation: false,
      textStyle: { fontFamily: FONT, color: t.ink },
      color: t.palette,
      aria: { enabled: false },
      tooltip: { confine: true, backgroundColor: t.card, borderColor: t.line, textStyle: { color: t.ink, fontFamily: FONT }, extraCssText: "white-space:normal" },
    };
  }

  function axis(t, name, extra) {
    return {
      name,
      nameLocation: "middle",
      nameGap: 28,
      nameTextStyle: { color: t.dim, fontSize: 12 },
      axisLabel: { color: t.dim, fontSize: 12, hideOverlap: true },
      axisLine: { lineStyle: { color: t.muted } },
      axisTick: { show: false },
      splitLine: { lineStyle: { color: t.line } },
      ...extra,
    };
  }

  const KINDS = {
    sankey(d, t, box) {
      const labels = new Map(d.nodes.map((node) => [node.name, node]));
      const used = new Set(d.links.flatMap((link) => [link.source, link.target]));
      const colors = { stage: t.chosen, drop: t.rejected, pairs: t.prompt };
      const drops = d.nodes.filter((node) => node.role === "drop").length;
      box.style.height = `${Math.max(300, 190 + 40 * drops)}px`;
      if (box.clientWidth < LEAST_FLOW) {
        box.style.minWidth = `${LEAST_FLOW}px`; // the figure scrolls sideways, by keyboard too
        box.parentElement.tabIndex = 0;
      }
      return {
        tooltip: {
          trigger: "item",
          formatter: (p) =>
            p.dataType === "edge"
              ? tip(`${labels.get(p.data.source).label} → ${labels.get(p.data.target).label}`, `${number.format(p.data.value)} texts`)
              : tip(labels.get(p.name).label, `${number.format(labels.get(p.name).value)} texts`),
        },
        series: [
          {
            type: "sankey",
            left: 8,
            right: 150,
            top: 24,
            bottom: 14,
            nodeWidth: 14,
            nodeGap: 34, // two lines of a label
            nodeAlign: "left",
            draggable: false,
            layoutIterations: 64,
            emphasis: { focus: "adjacency" },
            data: d.nodes
              .filter((node) => used.has(node.name))
              .map((node) => ({ name: node.name, depth: node.depth, itemStyle: { color: colors[node.role], borderWidth: 0 } })),
            links: d.links.map((link) => ({
              source: link.source,
              target: link.target,
              value: link.value,
              lineStyle: { color: link.role === "drop" ? t.rejected : t.chosen, opacity: link.role === "drop" ? 0.35 : 0.22, curveness: 0.5 },
            })),
            label: {
              color: t.ink,
              fontSize: 13,
              fontFamily: FONT,
              lineHeight: 17,
              textBorderColor: t.card,
              textBorderWidth: 3,
              formatter: (p) => `${labels.get(p.name).label}\n${number.format(labels.get(p.name).value)}`,
            },
          },
        ],
      };
    },

    bars(d, t, box) {
      box.style.height = `${Math.max(150, 70 + 34 * d.labels.length)}px`;
      return {
        aria: { enabled: true, label: { enabled: false }, decal: { show: d.series.length > 1 } },
        legend: d.series.length > 1 ? { top: 0, left: 0, textStyle: { color: t.dim }, itemWidth: 16, itemHeight: 10 } : undefined,
        grid: { left: 10, right: 60, top: d.series.length > 1 ? 34 : 8, bottom: 26, containLabel: true },
        tooltip: { trigger: "item", formatter: (p) => tip(d.labels[p.dataIndex], `${p.seriesName}: ${number.format(p.value)} ${d.unit}`) },
        xAxis: axis(t, "", { type: "value", minInterval: 1 }),
        yAxis: axis(t, "", { type: "category", data: d.labels.map((_, i) => i), inverse: true, axisLabel: { color: t.ink, fontSize: 13, width: Math.round(box.clientWidth * 0.36), overflow: "truncate", formatter: (i) => d.labels[i] } }),
        series: d.series.map((series) => ({
          type: "bar",
          name: series.name,
          stack: d.stacked ? "all" : undefined,
          data: series.values,
          barMaxWidth: 22,
          itemStyle: { color: t[series.color], borderRadius: 2 },
          label: d.stacked ? undefined : { show: true, position: "right", color: t.dim, formatter: (p) => number.format(p.value) },
        })),
      };
    },

    histogram(d, t) {
      const many = d.series.length > 1;
      return {
        legend: many ? { top: 0, left: 0, textStyle: { color: t.dim }, itemWidth: 20, itemHeight: 8 } : undefined,
        grid: { left: 46, right: 18, top: (many ? 34 : 18) + (d.marks.length ? 16 : 0), bottom: d.x ? 46 : 28 },
        tooltip: {
          trigger: "axis",
          formatter: (all) => {
            const at = all[0].dataIndex;
            const last = Math.min(at + 1, d.edges.length - 1);
            return tip(`${number.format(d.edges[at])} to ${number.format(d.edges[last])}`, ...all.map((p) => `${p.seriesName}: ${number.format(p.value[1])} %`));
          },
        },
        xAxis: axis(t, d.x, {
          type: "value",
          min: d.edges[0],
          max: d.edges.at(-1),
          splitLine: { show: false },
          // The ends lie on edges of bins, not on round steps: labels there would stand out of line with the others.
          axisLabel: { color: t.dim, fontSize: 12, hideOverlap: true, showMinLabel: false, showMaxLabel: false },
        }),
        yAxis: axis(t, d.y, { type: "value", nameGap: 34, axisLine: { onZero: false, lineStyle: { color: t.muted } } }),
        series: d.series.map((series, i) => {
          const color = series.beside && series.color === d.series[0].color ? t.ink : t[series.color];
          return {
            type: "line",
            name: series.name,
            step: "end",
            symbol: "none",
            data: [...series.values.map((value, bin) => [d.edges[bin], value]), [d.edges.at(-1), series.values.at(-1)]],
            lineStyle: { color, width: series.beside ? 2 : 1.5, type: series.beside ? "dashed" : "solid" },
            itemStyle: { color },
            areaStyle: series.beside ? undefined : { color, opacity: 0.28 },
            markLine:
              i === 0 && d.marks.length
                ? {
                    silent: true,
                    symbol: "none",
                    lineStyle: { color: t.ink, type: "dashed", width: 1.5 },
                    label: { color: t.ink, formatter: (p) => `${p.data.note} ${number.format(p.value)}` },
                    data: d.marks.map((mark) => ({ xAxis: mark.at, note: mark.name })),
                  }
                : undefined,
          };
        }),
      };
    },

    sunburst(d, t, box) {
      box.style.height = "460px";
      const total = d.tree.reduce((sum, verb) => sum + verb.value, 0);
      const data = d.tree.map((verb, i) => {
        const color = t.palette[i % t.palette.length];
        return {
          ...verb,
          itemStyle: { color, opacity: 0.92 },
          label: { color: textOn(color) },
          children: verb.children.map((noun) => ({ ...noun, itemStyle: { color, opacity: noun.rest ? 0.1 : 0.3 }, label: { color: noun.rest ? t.dim : t.ink } })),
        };
      });
      return {
        tooltip: {
          formatter: (p) =>
            tip(
              p.treePathInfo.slice(1).map((node) => node.name).join(" ") || "all",
              `${number.format(p.value)} prompts, ${number.format((100 * p.value) / total)} %`,
            ),
        },
        series: [
          {
            type: "sunburst",
            data,
            radius: ["16%", "96%"],
            sort: "desc",
            nodeClick: "rootToNode",
            itemStyle: { borderColor: t.card, borderWidth: 2 },
            label: { rotate: "radial", fontFamily: FONT, fontSize: 12, minAngle: 6 },
            levels: [{}, { r0: "16%", r: "52%", label: { fontWeight: 600 } }, { r0: "52%", r: "96%" }],
            emphasis: { focus: "ancestor" },
          },
        ],
      };
    },

    scatter(d, t, box) {
      box.style.height = "480px";
      const most = t.palette.length;
      return {
        legend: { type: "scroll", top: 0, left: 0, textStyle: { color: t.dim }, pageTextStyle: { color: t.dim }, formatter: (name) => (name.length > 40 ? `${name.slice(0, 39)}…` : name) },
        grid: { left: 10, right: 10, top: 40, bottom: 10 },
        tooltip: { trigger: "item", formatter: (p) => tip(p.seriesName, p.value[2]) },
        xAxis: axis(t, "", { type: "value", scale: true, axisLabel: { show: false }, axisLine: { show: false }, splitLine: { show: false } }),
        yAxis: axis(t, "", { type: "value", scale: true, axisLabel: { show: false }, axisLine: { show: false }, splitLine: { show: false } }),
        dataZoom: [{ type: "inside", xAxisIndex: 0, zoomOnMouseWheel: "ctrl" }, { type: "inside", yAxisIndex: 0, zoomOnMouseWheel: "ctrl" }],
        series: d.groups.map((group, i) => ({
          type: "scatter",
          name: group.name,
          data: group.points,
          symbol: SHAPES[i % SHAPES.length],
          symbolSize: d.groups.reduce((n, g) => n + g.points.length, 0) > 800 ? 6 : 9,
          itemStyle: { color: i < most ? t.palette[i] : t.muted, opacity: 0.72, borderColor: t.card, borderWidth: 0.5 },
          emphasis: { itemStyle: { opacity: 1, borderColor: t.ink, borderWidth: 1.5 } },
        })),
      };
    },

    curve(d, t) {
      return {
        grid: { left: 48, right: 24, top: 24, bottom: 46 },
        tooltip: { trigger: "axis", formatter: ([p]) => tip(`bound ${number.format(p.value[2])}`, `recall ${number.format(p.value[0])}`, `precision ${number.format(p.value[1])}`) },
        xAxis: axis(t, "recall", { type: "value", min: 0, max: 1 }),
        yAxis: axis(t, "precision", { type: "value", min: 0, max: 1, nameGap: 34 }),
        series: [
          {
            type: "line",
            name: "precision",
            data: d.points,
            symbol: "none",
            lineStyle: { color: t.chosen, width: 2.5 },
            itemStyle: { color: t.chosen },
            markLine: {
              silent: true,
              symbol: "none",
              lineStyle: { color: t.muted, type: "dotted" },
              label: { color: t.dim, position: "insideStartTop", formatter: () => "share of good labels" },
              data: [{ yAxis: d.base }],
            },
            markPoint: d.at ? { symbol: "circle", symbolSize: 13, itemStyle: { color: t.rejected }, label: { show: true, position: "bottom", color: t.ink, formatter: () => "bound" }, data: [{ coord: d.at }] } : undefined,
          },
        ],
      };
    },
  };

  const boxes = [...document.querySelectorAll("[data-chart]")];
  let charts = [];

  function merge(base, own) {
    return { ...base, ...own, tooltip: { ...base.tooltip, ...own.tooltip } };
  }

  function draw() {
    charts.forEach((chart) => chart.dispose());
    const t = theme();
    charts = boxes.map((box) => {
      const data = DATA[box.dataset.chart];
      const own = KINDS[data.kind](data, t, box);
      const chart = echarts.init(box, null, { renderer: "canvas", devicePixelRatio: Math.max(2, devicePixelRatio) });
      chart.setOption(merge(common(t), own));
      return chart;
    });
    document.documentElement.dataset.charts = String(charts.length);
  }

  draw();
  let pending = 0;
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(pending);
    pending = setTimeout(draw, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
})();
