"""What is said of mistakes that are no other line of the right solution: how a function behaves,
and the life of a layer. Name of the mistake: what was looked at, the sentence."""

# A table is read by its rows.
# fmt: off

SAID = {
    "endless loop": ("it comes to an end",
        "A call did not come back within a few seconds, so it was stopped. Is there a loop whose "
        "condition never becomes false? Nothing else was looked at."),
    "NumPy only": ("it works on MXNet's arrays",
        "It runs on NumPy arrays only, so autograd cannot follow it and no network could be "
        "trained with it ({0})."),
    "order of the arguments": ("the order of the arguments",
        "Your arguments are in another order than ({0}). They were passed by name here, but d2l's "
        "layer passes them by position, and would mix them up."),
    "return order": ("the order of what is returned",
        "{0} comes first, then {1}; yours come in another order."),
    "statistics not returned": ("moving statistics",
        "Only one array comes back. The function returns three: Y, the moving mean and the moving "
        "variance, even if they are changed in place."),
    "statistics change shape": ("a second step with the statistics that came back",
        "The moving statistics go in with shape {0} and come back with shape {1}, so the next step "
        "meets them in another shape."),
    "wrong type returned": ("it returns MXNet's arrays",
        "NumPy arrays come back. The layer in front and the Trainer work with MXNet's."),
    "shape changed": ("Y has the shape of X", "X of shape {0} comes back as Y of shape {1}."),
    "{0} changed in place": ("{0} is left as it was",
        "{0} is changed in place: {1}. Look for -=, *= or [:] =."),
    "mode left on": ("it leaves the modes of MXNet as they were",
        "After the call autograd's mode, or that of NumPy's semantics, is another one, for all "
        "that runs next. `with autograd.train_mode():` and the like put it back."),
    "remembers": ("the same call again",
        "The same call gives another answer the second time: something of the last call is kept "
        "and used in the next, or it is random."),
    # the life of a layer
    "more than Y returned": ("what forward returns",
        "More than one value comes back. The layer behind this one expects Y alone."),
    "gamma and beta are one": ("gamma and beta are two",
        "gamma and beta are one and the same Parameter: self.params.get returns the one that has "
        "this name already, if there is one."),
    "no {0}": ("it has a {0}",
        "No array of the layer is called {0}. It is a Parameter, made in the constructor, so that "
        "it is initialized, trained and saved with the network."),
    "{0} not registered": ("{0} is a Parameter",
        "{0} is an array, but no Parameter: collect_params() does not know it, so no Trainer will "
        "move it and no file will hold it."),
    "{0} without gradient": ("{0} is learned",
        "{0} asks for no gradient (grad_req='null'), so it stays as it is for ever."),
    "{0} starts wrong": ("where the {0} starts",
        "It starts at {1}, not at {2}. gamma 1 and beta 0 are plain normalization, mean 0 and "
        "variance 1 those of a normalized input."),
    "statistics receive gradients": ("the {0} is no weight",
        "{1} asks for gradients (grad_req is not 'null'). It is observed, not learned: the Trainer "
        "would wait for its gradient, or decay it."),
    "statistics trained": ("a step of the Trainer",
        "It moves {0}. The statistics are observed, not learned: the Trainer must not touch them."),
    "no gradient for {0}": ("a step of the Trainer",
        "It leaves {0} where they were: no gradient arrives."),
    "parameters lost on save": ("saved and loaded",
        "After load_parameters a new layer predicts as if it had never been trained: nothing of it "
        "is in the file."),
    "statistics lost on save": ("saved and loaded",
        "Loaded into a new layer, it predicts something else: {0} not in the file. save_parameters "
        "writes Parameters only; an array that is a plain attribute is left behind (chapter 4)."),
    "state shared between layers": ("two layers",
        "Training one layer changes what another predicts: they share an array, perhaps an "
        "attribute of the class or a default argument."),
    "mode frozen by hybridize": ("in a hybridized network",
        "The network is drawn once, in the first call, and what Python asked then is frozen: the "
        "layer stays in the mode of its first call, training or prediction."),
    "changed by hybridize": ("in a hybridized network",
        "Hybridized, it gives other numbers than call by call: something that Python does at every "
        "call happens only once in the drawn network."),
    "moving statistics not updated": ("running statistics",
        "After a step of training the predictions are what they were, and no array of the layer "
        "has mean or var in its name: where is kept what the batches were like?"),
    "labels clipped": ("labels that no class has",
        "With {0} classes, it takes {1}, without a word. MXNet's take and Embedding clip an index "
        "that is out of range, so a wrong label trains the class next door. Look at labels first."),
    "labels not checked": ("labels that no class has",
        "With {0} classes, it takes {1}, without a word. Such a label is a mistake in the data, "
        "and nobody hears of it. Look at the labels before you use them."),
    "type of the labels": ("labels of type float32",
        "They give another Y than the same labels as integers."),
}
