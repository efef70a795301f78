"""A class with a config that no library wrote: what takes part is told by what it has."""

import json

from torch import nn


class Config:
    def __init__(self, width=8, heads=4, inner=None, depth=3, stages=(6, 10), kinds=None, head=None, **more):
        self.width, self.heads, self.inner, self.depth, self.stages = width, heads, inner, depth, list(stages)
        self.kinds = kinds or ["full"] * depth
        self.head = head if isinstance(head, Head) else Head(**(head or {}))
        self.seen_tokens = 8
        if len(self.kinds) != depth:
            raise ValueError(f"{len(self.kinds)} kinds of {depth} layers")

    def to_dict(self):
        return {**{k: v for k, v in vars(self).items() if k != "head"}, "head": self.head.to_dict()}

    @classmethod
    def from_dict(cls, values):
        return cls(**json.loads(json.dumps(values)))


class Head:
    def __init__(self, size=5, **more):
        self.size = size

    def to_dict(self):
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values):
        return cls(**values)


class Layer(nn.Module):
    def __init__(self, config, number):
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"a width of {config.width} is not divisible by {config.heads} heads")
        self.heads, self.number, self.config = config.heads, number, config
        self.inner = inner = config.inner or 4 * config.width
        self.mix, self.join = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(2))
        self.up, self.down = nn.Linear(config.width, inner), nn.Linear(inner, config.width)

    def forward(self, x):
        width = x.shape[-1] // self.heads
        y = self.mix(self.norms[0](x)).unflatten(-1, (self.heads, width))  # (B, heads, width)
        x = x + self.join((y.softmax(-1) * y).flatten(-2))
        return x + self.down(self.up(self.norms[1](x)).relu())


class Network(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.scale = config, config.width**-0.5
        self.first, self.second = nn.Linear(4, config.stages[0]), nn.Linear(*config.stages)
        self.into = nn.Linear(config.stages[1], config.width)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.depth))
        self.between, self.out = nn.Linear(config.width, config.head.size), nn.Linear(config.head.size, 3)
        self.note = "as it is"

    def forward(self, x):  # (B, 4)
        x = self.into(self.second(self.first(x).relu()).relu())
        for layer in self.layers:
            x = layer(x)
        return self.out(self.between(x).relu())

    def save_pretrained(self, folder):
        (folder / "config.json").write_text(json.dumps(self.config.to_dict()))


class Around(nn.Module):
    """A network inside of another one."""

    def __init__(self, config):
        super().__init__()
        self.body, self.last = Network(config), nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.body(x))
