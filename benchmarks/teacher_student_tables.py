"""The tables of teacher_student.py, in Markdown, as docs/statistical_mechanics.md quotes them."""

SHOWN = {
    "random_node": "random nodes",
    "importance_node": "important nodes",
    "dpp_gram": 'DPP nodes, "gram"',
    "dpp_fields": 'DPP nodes, "fields"',
    "dpp_gaussian": 'DPP nodes, "gaussian"',
    "random_edge": "random edges",
    "magnitude_edge": "largest edges",
}
CLAIMS = {
    "dpp_gram < random_node": 'DPP ("gram") beats random nodes',
    "dpp_fields < random_node": 'DPP ("fields") beats random nodes',
    "dpp_gaussian < random_node": 'DPP ("gaussian") beats random nodes',
    "dpp_gram < importance_node": 'DPP ("gram") beats important nodes',
    "dpp_fields < importance_node": 'DPP ("fields") beats important nodes',
    "dpp_fields < signed_importance_node": 'DPP ("fields") beats nodes of largest v, signed',
    "random_edge < dpp_gram": 'random edges beat DPP nodes ("gram")',
    "random_edge < dpp_fields": 'random edges beat DPP nodes ("fields")',
}
SIGNS = {"holds": "+", "reversed": "−", "undecided": "·"}


def errors(found):
    """Mean ε of each rule at each size: simulation, and theory in brackets."""
    sizes = [entry["kept"] for entry in found["pruned"]]
    lines = ["| units kept | " + " | ".join(map(str, sizes)) + " |", "|---|" + "---|" * len(sizes)]
    for way, said in (("plain", ""), ("fused", ", re-weighted")):
        for rule, name in SHOWN.items():
            cells = [cell(entry["errors"][rule][way]) for entry in found["pruned"]]
            lines.append(f"| {name}{said} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(entry):
    return f"{entry['simulation']['mean']:.3g} ({entry['theory']['mean']:.3g})"


def verdicts(scenarios):
    """Each claim in each scenario: one sign a size, in simulation and (where different) in theory."""
    names = list(scenarios)
    lines = ["| claim | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for way, said in (("plain", "as pruned"), ("fused", "re-weighted")):
        for claim, text in CLAIMS.items():
            cells = []
            for found in scenarios.values():
                signs = {
                    source: "".join(
                        SIGNS[entry["claims"][claim][way][source]["verdict"]] for entry in found["pruned"]
                    )
                    for source in ("simulation", "theory")
                }
                same = signs["simulation"] == signs["theory"]
                cells.append(f"`{signs['simulation']}`" + ("" if same else f" (`{signs['theory']}`)"))
            lines.append(f"| {text}, {said} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
