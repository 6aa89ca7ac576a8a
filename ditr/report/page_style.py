"""How a report looks."""

STYLE = """
:root { --ink: #222; --soft: #666; --line: #e3e3de; --paper: #fafaf7; --accent: #0b6e4f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 Inter, system-ui, sans-serif; }
header, main { max-width: 1080px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 48px; }
.kind { color: var(--soft); margin: 0; font-size: 14px; }
h1 { font-size: 28px; line-height: 1.25; margin: 6px 0 18px; font-weight: 650; overflow-wrap: anywhere; }
h2 { font-size: 22px; margin: 0 0 12px; font-weight: 650; }
h3 { font-size: 16px; margin: 22px 0 8px; font-weight: 600; }
nav { display: flex; flex-wrap: wrap; gap: 6px 18px; border-bottom: 1px solid var(--line); padding-bottom: 14px; }
nav a { color: var(--accent); text-decoration: none; font-size: 14px; }
section { padding: 34px 0 8px; }
.caption { color: var(--soft); font-size: 14px; max-width: 72ch; }
.answer { border-left: 4px solid var(--accent); padding: 2px 0 2px 18px; margin: 18px 0; }
.answer h3 { margin: 0 0 6px; font-size: 18px; }
.answer ul, .caveats ul { margin: 0; padding-left: 18px; }
.verdict { display: inline-block; padding: 0 10px; border-radius: 12px; font-size: 14px; color: white; }
.verdict { background: #777; }
.verdict.yes { background: #0b6e4f; } .verdict.no { background: #b23a48; }
.caveats { background: #fff7e0; border: 1px solid #eedfae; border-radius: 6px; padding: 4px 18px 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; width: 100%; }
table { background: white; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1.5px solid #bbb; }
th, td { padding: 6px 12px; white-space: nowrap; border-bottom: 1px solid var(--line); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 14px; }
figure { margin: 0; background: white; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
figure img { width: 100%; display: block; }
figcaption { font-size: 13px; padding: 6px 10px; color: var(--soft); }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 18px; }
.columns > div { min-width: 0; overflow: hidden; }
details { margin: 6px 0; } summary { cursor: pointer; font-size: 14px; color: var(--accent); overflow-wrap: anywhere; }
pre { font-size: 12.5px; background: white; border: 1px solid var(--line); padding: 12px; overflow: auto; }
pre { max-height: 480px; }
@media (max-width: 600px) { header, main { padding: 0 14px; } h1 { font-size: 22px; } }
"""
