"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  const state = { column: null, descending: false, hidden: new Set() };

  function add(parent, tag, text, className) {
    const child = document.createElement(tag);
    if (text !== undefined) child.textContent = text;
    if (className) child.className = className;
    parent.appendChild(child);
    return child;
  }

  const AXES = {
    epochs: "epoch",
    seconds: "training time in seconds, without evaluation",
    flops: "floating-point operations of training",
  };

  function compare(first, second) {
    // Rows without a value come last in either order.
    if (first === null || second === null) return (first === null) - (second === null);
    const order = typeof first === "number" ? first - second : first.localeCompare(second);
    return state.descending ? -order : order;
  }

  function visible() {
    const words = element("filter").value.toLowerCase().split(/\s+/).filter((word) => word && word !== "-");
    const rows = data.rows.filter((row) => {
      const text = row.text.join(" ").toLowerCase();
      return words.every((word) => (word.startsWith("-") ? !text.includes(word.slice(1)) : text.includes(word)));
    });
    if (state.column === null) return rows;
    return rows.slice().sort((first, second) => compare(first.value[state.column], second.value[state.column]));
  }

  function sortBy(column) {
    state.descending = state.column === column && !state.descending;
    state.column = column;
    draw();
  }

  function header() {
    const line = add(document.querySelector("#rows thead"), "tr");
    add(line, "th", "");
    data.columns.forEach((column, index) => {
      const cell = add(line, "th", undefined, column.numeric ? "number" : "");
      add(cell, "button", column.title).addEventListener("click", () => sortBy(index));
    });
  }

  function table(rows) {
    document.querySelectorAll("#rows th").forEach((cell, index) => {
      if (index - 1 === state.column) cell.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    const body = document.querySelector("#rows tbody");
    body.replaceChildren();
    for (const row of rows) {
      const line = add(body, "tr");
      const box = add(add(line, "td"), "input");
      box.type = "checkbox";
      box.checked = !state.hidden.has(row.label);
      box.disabled = row.curve === null;
      box.setAttribute("aria-label", "curve of " + row.label);
      box.addEventListener("change", () => {
        if (box.checked) state.hidden.delete(row.label);
        else state.hidden.add(row.label);
        chart(visible());
      });
      row.text.forEach((text, index) => {
        const { numeric, wraps } = data.columns[index];
        add(line, "td", text, numeric ? "number" : wraps && text ? "wordy" : "");
      });
    }
    element("count").textContent = rows.length + " of " + data.rows.length + (data.rows.length === 1 ? " row" : " rows");
  }

  function within(points, last) {
    const count = points.x.filter((epoch) => epoch <= last).length;
    return { ...points, x: points.x.slice(0, count), y: points.y.slice(0, count) };
  }

  function traces(row, axis, band) {
    const { curve, label, color, dash } = row;
    const x = curve[axis];
    const line = {
      x, y: curve.mean, name: label, legendgroup: label, mode: x.length > 1 ? "lines" : "markers",
      line: { color: color, width: 2, dash }, marker: { color: color },
      customdata: curve.std, meta: curve.count,
      hovertemplate: "%{y:.2f} ± %{customdata:.2f} (n = %{meta}) at %{x:.4~s}",
    };
    const published = {
      x: row.published.map((point) => point[0]), y: row.published.map((point) => point[1]),
      name: label + ", published", legendgroup: label, showlegend: false, mode: "markers",
      marker: { color: color, symbol: "x-thin-open", size: 9, line: { width: 2 } },
      hovertemplate: "%{y:.2f} published, after %{x} epochs",
    };
    // Published values have an epoch but no time or FLOPs. Those far beyond our runs' last epoch would squeeze the curves.
    const near = axis === "epochs" && row.published.length ? [within(published, x[x.length - 1])] : [];
    if (!band || curve.count < 2) return [line, ...near];
    const edges = {
      x: x.concat(x.slice().reverse()),
      y: curve.mean.map((mean, index) => mean + curve.std[index])
        .concat(curve.mean.map((mean, index) => mean - curve.std[index]).reverse()),
      name: label, legendgroup: label, showlegend: false, hoverinfo: "skip", mode: "lines",
      line: { width: 0, color: color }, fill: "toself", fillcolor: color + "33",
    };
    return [edges, line, ...near];
  }

  function chart(rows) {
    const axis = element("axis").value;
    const drawn = rows.filter((row) => row.curve && row.curve[axis].length && !state.hidden.has(row.label));
    const metrics = [...new Set(drawn.map((row) => row.metric))].join(", ");
    Plotly.react("chart", drawn.flatMap((row) => traces(row, axis, element("band").checked)), {
      xaxis: { title: { text: AXES[axis] }, rangemode: "tozero" },
      yaxis: { title: { text: metrics } },
      hovermode: "closest", margin: { t: 20 }, legend: { orientation: "h", y: -0.2 }, showlegend: true,
    }, { displaylogo: false, responsive: true });
  }

  function draw() {
    const rows = visible();
    table(rows);
    chart(rows);
  }

  function plainTable(section, { columns, rows, notes }) {
    const table = add(add(section, "div", undefined, "wide"), "table", undefined, "comparison");
    const line = (parent, texts, tag) => {
      const row = add(parent, "tr");
      texts.forEach((text, index) => add(row, tag, text, columns[index].numeric ? "number" : ""));
    };
    line(add(table, "thead"), columns.map((column) => column.title), "th");
    const body = add(table, "tbody");
    rows.forEach((texts) => line(body, texts, "td"));
    notes.forEach((note) => add(section, "p", note, "remark"));
  }

  function tables() {
    const section = element("tables");
    for (const table of data.tables) {
      add(section, "h2", table.title);
      plainTable(section, table);
    }
  }

  function comparisons() {
    const section = element("comparisons");
    if (data.comparisons.length) add(section, "h2", "Side by side at equal cost");
    for (const table of data.comparisons) {
      add(section, "h3", table.title);
      plainTable(section, table);
    }
  }

  function figures() {
    const section = element("figures");
    if (data.figures.length) add(section, "h2", "Figures");
    for (const figure of data.figures) {
      const part = add(section, "figure");
      const image = add(part, "img");
      image.src = "data:image/png;base64," + figure.png;
      image.alt = figure.title;
      add(part, "figcaption", figure.title);
    }
  }

  element("summary").textContent = data.summary;
  data.notes.forEach((note) => add(element("notes"), "p", note));
  data.messages.forEach((message) => add(element("messages"), "li", message));
  if (!data.messages.length) add(element("messages"), "li", "none");
  header();
  tables();
  comparisons();
  figures();
  element("filter").addEventListener("input", draw);
  element("axis").addEventListener("change", draw);
  element("band").addEventListener("change", draw);
  draw();
})();
