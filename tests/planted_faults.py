"""The faults that tests/mutation.py plants."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A fault: what it is, the file, the text that stands there once, what takes its place, and who should notice."""

    name: str
    file: str  # below src/
    old: str
    new: str
    tests: str  # as arguments of pytest
    equivalent: str = ""  # why no test can notice, where that is so

    @property
    def in_cpp(self) -> bool:
        return self.file.startswith("cpp/")


L, T, M, C = "tests/layers/", "tests/training/", "tests/models/", "tests/core/"

# What a review planted, and the tests of that time did not notice.
REVIEW = [
    Fault(
        "a served tape keeps x and y alive",
        "cpp/bindings/network.cpp",
        "  handle.x = handle.h0 = handle.y = handle.masks = py::none();\n",
        "",
        L + "test_tapes.py",
    ),
    Fault(
        "a tape of the other batch_first is taken",
        "cpp/bindings/network.cpp",
        " || (handle.layout.batched && handle.layout.batch_first != batch_first_)",
        "",
        L + "test_tapes.py",
    ),
    Fault(
        "work is left undone where fewer threads come than were asked for",
        "cpp/runtime/team.cpp",
        "Part::even(i, members_.size())",
        "Part::even(i, size_t(n_threads_))",
        C + "test_threads.py",
    ),
    Fault(
        "a copy of a frozen layer is not frozen",
        "fastrnn/_recurrent.py",
        '        if kept["frozen"]:\n            self.freeze()\n',
        "",
        L + "test_frozen_copies.py",
    ),
    Fault(
        "to_padded ignores fill",
        "fastrnn/ragged.py",
        "*self.values.shape[1:]), fill, self.values.dtype)",
        "*self.values.shape[1:]), 0, self.values.dtype)",
        L + "test_ragged_padding.py",
    ),
    Fault(
        "the loss of an epoch is a mean of means over batches",
        "fastrnn/models/_training.py",
        "total, count = total + loss * n, count + n",
        "total, count = total + loss, count + 1",
        M + "test_reported_losses.py",
    ),
    Fault(
        "the validation loss is a mean of means over batches",
        "fastrnn/models/_training.py",
        "sum(loss * n for loss, n in results) / max(sum(n for _, n in results), 1)",
        "sum(loss for loss, n in results) / max(len(results), 1)",
        M + "test_reported_losses.py",
    ),
    Fault(
        "the validation loss is smoothed",
        "fastrnn/models/_run.py",
        "smoothing = label_smoothing if self.train else 0.0",
        "smoothing = label_smoothing",
        M + "test_reported_losses.py",
    ),
    Fault(
        "evaluation of a language model drops its state every 1,000 tokens",
        "fastrnn/models/language.py",
        "return [(carried, x[c]",
        "return [([None] if rng is None else carried, x[c]",
        M + "test_reported_losses.py",
    ),
    Fault(
        "orthogonal matrices without the correction of signs",
        "fastrnn/init.py",
        "        q *= np.where(np.diag(r) < 0, -1.0, 1.0)  # makes the distribution uniform (Mezzadri 2007)\n",
        "",
        T + "test_initial_distributions.py",
    ),
    Fault(
        "NaN is taken as a weight of a loss",
        "fastrnn/losses.py",
        "expect(least >= 0 and most < np.inf,",
        "expect(not least < 0 and not most == np.inf,",
        T + "test_loss_weights.py",
    ),
    Fault(
        "no barrier before a checkpointed segment is computed again",
        "cpp/engine/bptt.hpp",
        "    if (!w.wait()) return false;                     // no thread reads the segment before",
        "    // before",
        L + "test_bitwise.py -k checkpoint",
        equivalent="the barrier that ends the steps of a chunk comes between, and products read no gates",
    ),
]

PYTHON = [
    Fault(
        "dropout is left out of the short way into a training pass",
        "fastrnn/_recurrent.py",
        "checkpoint is None and not self.dropout",
        "checkpoint is None",
        L + "test_layers.py -k dropout",
    ),
    Fault(
        "a stream forgets the state after a chunk",
        "fastrnn/_stream.py",
        "        self._core.state = after\n",
        "",
        L + "test_streams.py",
    ),
    Fault(
        "a wrapped tape says that it holds nothing",
        "fastrnn/_tapes.py",
        "return int(self.tape.nbytes)",
        "return 0",
        L + "test_tapes.py",
    ),
    Fault(
        "chunks give a sequence that has ended a negative length",
        "fastrnn/ragged.py",
        "np.clip(left - start, 0, n)",
        "np.minimum(left - start, n)",
        L + "test_chunks.py",
    ),
    Fault(
        "masked elements are read",
        "fastrnn/_arrays.py",
        "isinstance(value, np.ma.MaskedArray) and bool(np.ma.is_masked(value))",
        "False",
        L + "test_arrays.py -k hidden",
    ),
    Fault(
        "the parameters of a frozen layer are loaded over",
        "fastrnn/_parameters.py",
        '            self._before_change("load_state_dict")\n',
        "",
        L + "test_frozen_copies.py",
    ),
    Fault(
        "a state dict shares memory with the layer",
        "fastrnn/_parameters.py",
        "{name: value.copy() for name, value in self.params.items()}",
        "dict(self.params)",
        L + "test_state_dict.py",
    ),
    Fault(
        "an array of a wrong shape is broadcast into a parameter",
        "fastrnn/gradients.py",
        "if array.shape not in ((), view.shape):",
        "if False:",
        L + "test_views.py",
    ),
    Fault(
        "a schedule goes on below its floor",
        "fastrnn/_schedules.py",
        "min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))",
        "(step - self.warmup) / max(1, self.steps - self.warmup)",
        T + "test_optim.py",
    ),
    Fault(
        "a step that is not finite is counted",
        "fastrnn/optim.py",
        "        if clip_norm is not None and not math.isfinite(norm):\n            return norm\n",
        "",
        T + "test_failed_steps.py",
    ),
    Fault(
        "gradients of two dtypes are not clipped together",
        "fastrnn/optim.py",
        "scale = clip / norm if norm > clip else 1.0",
        "scale = 1.0",
        T + "test_two_dtypes.py",
    ),
    Fault(
        "the forget bias is counted twice",
        "fastrnn/init.py",
        '0 if name.startswith("bias_hh") else value',
        "value",
        T + "test_init.py",
    ),
    Fault(
        "an archive may hold more than its file",
        "fastrnn/io.py",
        "if sum(m.file_size for m in members) > len(data):",
        "if False:",
        T + "test_archives.py",
    ),
    Fault(
        "a file that could not be written leaves a part behind",
        "fastrnn/io.py",
        "        Path(temporary).unlink(missing_ok=True)\n",
        "        pass\n",
        T + "test_io.py",
    ),
    Fault(
        "a log-variance of weight 0 is counted",
        "fastrnn/losses.py",
        "        log_var = np.where(w == 0, 0, log_var)\n",
        "        pass\n",
        T + "test_losses.py",
    ),
    Fault(
        "dropout does not scale what it keeps",
        "fastrnn/nn.py",
        "        mask /= 1 - self.p\n",
        "",
        T + "test_nn.py",
    ),
    Fault(
        "attention looks beyond the lengths",
        "fastrnn/nn.py",
        "np.full(q.shape[1], len(m)) if lengths is None else as_lengths(lengths, q.shape[1], len(m))",
        "np.full(q.shape[1], len(m))",
        C + "test_training.py -k attention",
    ),
    Fault(
        "True is a number of threads",
        "fastrnn/config.py",
        "isinstance(n, bool) or not",
        "not",
        L + "test_small_checks.py",
    ),
    Fault(
        "an argument is taken by its old and its new name at once",
        "fastrnn/_deprecated.py",
        "                    if new in options:\n",
        "                    if False:\n",
        L + "test_small_checks.py",
    ),
    Fault(
        "functions take parameters of two dtypes",
        "fastrnn/functional.py",
        "if name in arrays and arrays[name].dtype != self.dtype",
        "if False",
        L + "test_small_checks.py",
    ),
    Fault(
        "a copied cell and its layer part",
        "fastrnn/cells.py",
        'super().__setstate__(kept | {"_flat": kept["_layer"].flat})',
        "super().__setstate__(kept)",
        L + "test_small_checks.py",
    ),
    Fault(
        "a GRU is always of the kind of torch.nn",
        "fastrnn/layers.py",
        'return "gru" if reset_after else "gru_before"',
        'return "gru"',
        L + "test_layers.py -k gru_before",
    ),
    Fault(
        "the gradient flow begins at the end of the padding",
        "fastrnn/diagnostics.py",
        "ends = [times == self.lengths - 1,",
        "ends = [times == len(self.x) - 1,",
        T + "test_diagnostics.py",
    ),
    Fault(
        "the discount of Kneser and Ney is too large",
        "fastrnn/demo.py",
        "once / (once + 2 * twice)",
        "once / (once + twice)",
        M + "test_demo.py",
    ),
    Fault(
        "the reference cuts at the wrong side of a reversed step",
        "fastrnn/reference/__init__.py",
        "cut = boundary[rows] if reverse else reset[t, rows]\n",
        "cut = reset[t, rows]\n",
        L + "test_sequences.py -k reset",
    ),
    Fault(
        "the reference forgets the way through the reset gate",
        "fastrnn/reference/cells.py",
        "return dx, (dh * z + v * r + dh_prev,)",
        "return dx, (dh * z + v + dh_prev,)",
        L + "test_reference.py -k gru_before",
    ),
    Fault(
        "the last weights are kept, not the best",
        "fastrnn/models/_training.py",
        "held_out is not None and self._waited(log) == 0",
        "held_out is not None",
        M + "test_fit.py",
    ),
    Fault(
        "rare tokens stay in the vocabulary",
        "fastrnn/models/_data.py",
        "if n >= min_count]",
        "if n >= 1]",
        M + "test_language_model.py " + M + "test_classifiers.py",
    ),
    Fault(
        "a file of a model may ask for any linear layer",
        "fastrnn/models/_factory.py",
        "        self._spend((inputs + 1) * outputs)\n",
        "",
        M + "test_parts.py",
    ),
    Fault(
        "a failed fit leaves new attributes behind",
        "fastrnn/models/_errors.py",
        "        vars(model).clear()\n",
        "",
        M + "test_parts.py",
    ),
    Fault(
        "a run goes on from a checkpoint of another class",
        "fastrnn/models/_files.py",
        '{"class"} if stored["class"] != own["class"] else set()',
        "set()",
        M + "test_parts.py",
    ),
    Fault(
        "the gradient is clipped to a norm of 0",
        "fastrnn/models/_hyperparameters.py",
        '("dropout", "label_smoothing", "word_dropout"), ("clip",)',
        '("dropout", "label_smoothing", "word_dropout"), ()',
        M + "test_model_errors.py",
    ),
    Fault(
        "the bar does not tell the epoch",
        "fastrnn/models/_progress.py",
        "tqdm(total=len(batches), desc=description)",
        "tqdm(total=len(batches))",
        M + "test_fit.py",
    ),
    Fault(
        "beams compare log p alone",
        "fastrnn/models/_writer.py",
        "scores / lengths**search.length_penalty",
        "scores",
        M + "test_beam_search.py",
    ),
    Fault(
        "the gradient of a label goes into the lowest layer",
        "fastrnn/models/_sequence_model.py",
        "dh[-directions:] = np.split",
        "dh[:directions] = np.split",
        M + "test_model_gradients.py",
    ),
    Fault(
        "a temperature is ignored",
        "fastrnn/models/language.py",
        "log_softmax(_likely(scores, top_k) / temperature)",
        "log_softmax(_likely(scores, top_k))",
        M + "test_generation.py",
    ),
    Fault(
        "the gradient of a bounded variance is that of a free one",
        "fastrnn/models/_outputs.py",
        "draw = dlog_var * (1 - np.square(log_var / BOUND))",
        "draw = dlog_var",
        M + "test_model_gradients.py",
    ),
    Fault(
        "the gradient of the query of attention is lost",
        "fastrnn/models/translation.py",
        "return dh + dquery, dmemory",
        "return dh, dmemory",
        M + "test_model_gradients.py",
    ),
    Fault(
        "every step of a captioner starts a new optimiser",
        "fastrnn/models/captioner.py",
        "if self._kept_optimiser is None:",
        "if True:",
        M + "test_captioner.py",
    ),
    Fault(
        "the mean of a pooled sequence forgets its length in the gradient",
        "fastrnn/models/_pooling.py",
        "dvalues[part] = dout[b] / n",
        "dvalues[part] = dout[b]",
        M + "test_model_gradients.py",
    ),
    Fault(
        "attention that pools has no gradient of its scores",
        "fastrnn/models/_pooling.py",
        "dvalues = dvalues + run.back(dscores",
        "run.back(dscores",
        M + "test_model_gradients.py",
    ),
    Fault(
        "every network of several has the same seed",
        "fastrnn/models/_training.py",
        "random_state=self.random_state + i",
        "random_state=self.random_state",
        M + "test_several_networks.py",
    ),
    Fault(
        "words are dropped in predictions too",
        "fastrnn/models/_sequence_model.py",
        "if run.train and self.word_dropout",
        "if self.word_dropout",
        M + "test_initial_embeddings.py",
    ),
    Fault(
        "a horizon counts what is missing",
        "fastrnn/models/_direct.py",
        "weights[:, b] = seen[t : t + horizon, c.forecast]",
        "pass",
        M + "test_missing_values.py",
    ),
    Fault(
        "a backtest reads one value too many",
        "fastrnn/models/forecaster.py",
        "self._scale(series[:t], self.config_) for t",
        "self._scale(series[: t + 1], self.config_) for t",
        M + "test_backtests.py",
    ),
    Fault(
        "quantiles may cross",
        "fastrnn/models/_outputs.py",
        "return np.sort(np.stack(np.split(raw, self.size, axis=-1)) + base, axis=0)",
        "return np.stack(np.split(raw, self.size, axis=-1)) + base",
        M + "test_horizons.py",
    ),
]

CPP = [
    Fault(
        "a failed backward uses the tape up",
        "cpp/bindings/tape.hpp",
        "    handle_.tape = std::move(tape_);\n",
        "",
        L + "test_tapes.py",
    ),
    Fault(
        "a stream takes two steps at once",
        "cpp/bindings/stream.cpp",
        "    if (busy.exchange(true, std::memory_order_acquire))\n",
        "    if (busy.exchange(true, std::memory_order_acquire) && false)\n",
        C + "test_stress.py " + L + "test_streams.py",
    ),
    Fault(
        "lengths are checked in the caller's array, not in the copy",
        "cpp/bindings/sequence.cpp",
        "    if (n < 0 || size_t(n) > layout.steps)\n",
        "    if (false)\n",
        C + "test_stress.py",
    ),
    Fault(
        "the columns of a weight are not checked",
        "cpp/bindings/weights.cpp",
        "(a->nd == 1 ? columns == 1 : a->nd == 2 && size_t(a->dimensions[1]) == columns)",
        "(a->nd == 1 ? columns == 1 : a->nd == 2)",
        C + "test_weights.py",
    ),
    Fault(
        "a lookup checks no id",
        "cpp/bindings/training.cpp",
        '  check_below("ids", wanted.data(), count, rows);\n',
        "",
        C + "test_training.py",
    ),
    Fault(
        "a reset cuts a reversed sequence one step too late",
        "cpp/engine/batch.hpp",
        "s > 0 && flags(length[r] - s, order[r])",
        "flags(length[r] - 1 - s, order[r])",
        L + "test_sequences.py",
    ),
    Fault(
        "the reset of one sequence of a stream reaches the wrong half of its state",
        "cpp/engine/stream.cpp",
        "T *const to_h = h(l, buffer_) + row * R,",
        "T *const to_h = h(l, 0) + row * R,",
        L + "test_small_checks.py",
    ),
    Fault(
        "attention leaves the gradient of the padding as it finds it",
        "cpp/engine/attention.cpp",
        "for (size_t s = length; s < x.places; ++s) std::memset(dmemory",
        "for (size_t s = x.places; s < x.places; ++s) std::memset(dmemory",
        C + "test_training.py",
    ),
    Fault(
        "the last block of a long sum is not added",
        "cpp/engine/sums.hpp",
        "(done + n) % block == 0 || done + n == p.batch.total()",
        "(done + n) % block == 0",
        L + "test_numbers.py",
    ),
    Fault(
        "layers run as a wavefront although dropout stands between them",
        "cpp/engine/schedule.cpp",
        " && !p.dropout;",
        ";",
        C + "test_limits.py",
    ),
    Fault(
        "a limit of threadpoolctl is ignored",
        "cpp/runtime/callers.cpp",
        "? std::min(n, limit) : n;",
        "? n : n;",
        C + "test_limits.py",
    ),
    Fault(
        "the quota of the outer group is forgotten",
        "cpp/runtime/cpus.cpp",
        "return a > 0 && b > 0 ? std::min(a, b) : std::max(a, b);",
        "return std::max(a, b);",
        C + "test_helper_threads.py -k used",
    ),
]

OPTIONS = [
    Fault(
        "an option: a mask's gradient does not go to the step whose output was repeated",
        "fastrnn/_masks.py",
        "np.add.reduceat(flat[self._valid[some], part], starts, axis=0)",
        "flat[self._valid[some], part][starts]",
        L + "test_masks.py",
    ),
    Fault(
        "an option: a masked reverse layer repeats the outputs of the other side",
        "fastrnn/_masks.py",
        "(back,) if layer.reverse else",
        "(forward,) if layer.reverse else",
        L + "test_masks.py",
    ),
    Fault(
        "an option: a constraint forgets the sign",
        "fastrnn/_constraints.py",
        "np.copyto(view, 0, where=wrong)",
        "pass",
        T + "test_constraints.py",
    ),
    Fault(
        "an option: functions of init leave a constraint broken",
        "fastrnn/init.py",
        'note_change(array, "a function of fastrnn.init")',
        "pass",
        T + "test_constraints.py",
    ),
    Fault(
        "an option: the mean of final hidden states is their sum",
        "fastrnn/_final_hidden.py",
        'if self.merge == "ave":\n            full[-2:] *= self.dtype.type(0.5)',
        "if False:\n            full[-2:] *= self.dtype.type(0.5)",
        L + "test_directions.py",
    ),
    Fault(
        "an option: the last step's gradient of a reverse layer goes to its other end",
        "cpp/engine/bptt_buffers.hpp",
        "if (dir.way == 1 && s == 0) return",
        "if (dir.direction == 1 && s == 0) return",
        L + "test_directions.py",
    ),
    Fault(
        "an option: the gradient of a product of directions has the wrong factor",
        "cpp/engine/bptt_buffers.hpp",
        "const ptrdiff_t to_other = dir.direction ? -ptrdiff_t(p.R) : ptrdiff_t(p.R);",
        "const ptrdiff_t to_other = 0;",
        L + "test_directions.py",
    ),
    Fault(
        "an option: a learned state that was not used gets a gradient",
        "cpp/bindings/network.cpp",
        "add_up_state<T>(to, g.dh0, handle.learned_h,",
        "add_up_state<T>(to, g.dh0, true,",
        L + "test_directions.py",
    ),
    Fault(
        "an option: a stream is reset to zero and not to the learned state",
        "cpp/engine/stream.cpp",
        "for (size_t r = 0; r < rows_ && shape_.learned_state; ++r) reset_row(r);",
        "",
        L + "test_directions.py",
    ),
    Fault(
        "an option: gradients of hidden layers wait for no other layer",
        "cpp/bindings/network.cpp",
        "arrays.dropout || !g.dlayers.empty()",
        "arrays.dropout != nullptr",
        L + "test_return_layers.py",
    ),
]

FAULTS = REVIEW + PYTHON + CPP + OPTIONS
FAULTS.sort(key=lambda fault: fault.in_cpp)  # Python first: what comes after a fault in C++ needs a build
