"""From labels to units: groups, their places and costs, sections beside shortcuts."""
