"""The bugs of A6, plain against residual: changes of the solution in notebooks/course/a6.py."""
from __future__ import annotations

from .bank import Bug

ZERO = "for t in net.parameters():\n    t.grad = None"
NORMS = "{name: np.linalg.norm(m.weight.grad) / np.linalg.norm(m.weight.data) for name, m in layers.items()}"
BACK = "for m, training in modes:\n    m.training = training"
EVERY = "range(0, len(x), batch_size)"
FULL = "range(0, len(x) - len(x) % batch_size, batch_size)"
ORDER = "order = rng.permutation(len(x))"
WRONG = "int((predicted != labels[rows]).sum())"
SHARING = """
for name, t in residual.state().items():
    t.data = plain.state()[name].data
return plain, residual
"""

BUGS = [
    Bug(1, "gradients are not zeroed before backward, which adds to them",
        {"a6.5": [[("optimizer.zero_grad()", "pass")],
                  [("optimizer.zero_grad()", "pass"), ("total = 0.0", "total = 0.0\noptimizer.zero_grad()")]],
         "a6.7": [[(ZERO, "pass")]]}),
    Bug(2, "the error is measured in train mode, so the batch's statistics decide",
        {"a6.6": [[("net.eval()", "net.train()")],
                  [("net.eval()", "pass")]]}),
    Bug(3, "the network stays in eval mode",
        {"a6.5": [[("net.train()", "pass")]],
         "a6.6": [[("for module, training in modes:\n    module.training = training", "pass")]],
         "a6.7": [[("net.train()", "pass")], [("net.train()", "net.eval()")], [(BACK, "net.eval()")]]}),
    Bug(4, "images and labels are shuffled apart, so that an image gets another image's label",
        {"a6.5": [[("labels[rows]", "labels[start:start + batch_size]")],
                  [("x[rows]", "x[start:start + batch_size]")],
                  [(ORDER, f"{ORDER}\n{ORDER.replace('order', 'other')}"),
                   ("labels[rows]", "labels[other[start:start + batch_size]]")]]}),
    Bug(5, "a short last batch counts as much as a full one",
        {"a6.5": [[("loss.item() * len(rows)", "loss.item()"), ("total / len(x)", "total / -(-len(x) // batch_size)")],
                  [("loss.item() * len(rows)", "loss.item() * batch_size")]],
         "a6.6": [[(WRONG, "float((predicted != labels[rows]).mean())"),
                   ("wrong / len(x)", "wrong / -(-len(x) // batch_size)")]]}),
    Bug(6, "the norms are read after the gradients were zeroed or put back",
        {"a6.7": [[("loss.backward()", "loss.backward()\nfor t in net.parameters():\n    t.grad = 0 * t.data")],
                  [(f"norms = {NORMS}", "pass"), ("return norms", f"return {NORMS}")]]}),
    Bug(7, "the gradient's norm is not divided by the weight's norm",
        {"a6.7": [[(" / np.linalg.norm(m.weight.data)", "")]]}),
    Bug(8, "the two networks differ in parameters: the residual one has projections (option B or C)",
        {"a6.2": [[("residual=True", 'residual=True, shortcut="B"')],
                  [("residual=True", 'residual=True, shortcut="C"')]]}),
    Bug(9, "the two networks share arrays, so that training one changes the other",
        {"a6.2": [[("return plain, residual", SHARING)]]}),
    Bug(10, "weight decay is multiplied by 1 - momentum",
        {"a6.3": [[("weight_decay * w", "(1 - momentum) * weight_decay * w")]]}),
    Bug(11, "momentum is dampened: the gradient enters the velocity times 1 - momentum",
        {"a6.3": [[("momentum * v + decayed", "momentum * v + (1 - momentum) * decayed")]]}),
    Bug(12, "the test images' own mean is subtracted from them",
        {"a6.1": [[("x_test - mean", "x_test - x_test.mean(axis=0, dtype=np.float64).astype(np.float32)")],
                  [("x - mean, x_test - mean", "x - mean, x_test - x_test.mean()")]]}),
    Bug(13, "the schedule is a step late",
        {"a6.4": [[("step >= drop", "step > drop"), ("step < warm_up", "step <= warm_up")],
                  [("step >= drop", "step > drop")],
                  [("step < warm_up", "step <= warm_up")]]}),
    Bug(14, "the test error is returned for the training error",
        {"a6.6": [[("error(net, *train, batch_size)", "error(net, *test, batch_size)")]]}),
    Bug(15, "the last, short batch is left out",
        {"a6.5": [[(EVERY, FULL)],
                  [(EVERY, FULL), ("total / len(x)", "total / max(len(x) - len(x) % batch_size, 1)")]],
         "a6.6": [[(EVERY, FULL)],
                  [(EVERY, FULL), ("wrong / len(x)", "wrong / max(len(x) - len(x) % batch_size, 1)")]]}),
    Bug(16, "the losses keep their graphs, which fill the memory step by step",
        {"a6.5": [[("loss.item() * len(rows)", "loss * len(rows)"), ("total / len(x)", "total.item() / len(x)")]]},
        seen="fact"),
]
