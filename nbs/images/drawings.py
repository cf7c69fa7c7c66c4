"""What the drawings of draw.py show: name -> (title for those who cannot see it, rows)."""

# ruff: noqa: E501

DRAWINGS = {
    "run": ("A run folder holds settings, artefacts and checkpoints; stages meet only there", [
        ["b:stage 1: data", ">", "the run folder\nrun.json, data.json, alphas.npz, genotype.json,\ncheckpoints/, finished/, report.json",
         ">", "g:stage 4: report"],
        ["-stage 2 and stage 3 read what is there and add to it; a killed session reads it and goes on"],
    ]),
    "genotype": ("Two inputs and four nodes; an edge is an operation from an earlier node to a later one", [
        ["k:input 0", ">sep_conv_3x3", "node 2", ">skip_connect", "node 3", ">dil_conv_5x5", "node 5", ">", "k:output"],
        ["-a genotype lists such edges, twice: for the normal cell and for the reduction cell"],
    ]),
    "network": ("A genotype becomes a stack of cells with a stem and a classifier", [
        ["k:image", ">", "stem", ">", "b:normal\ncells", ">", "o:reduction\nhalf the size,\ntwice the width", ">", "b:normal\ncells", ">",
         "o:reduction", ">", "b:normal\ncells", ">mean", "g:classifier"],
        ["-with parameters and MACs that agree with the published networks to the digit"],
    ]),
    "supernet": ("An edge of the supernet computes seven operations and adds their results, each times its weight", [
        ["k:node i", ">x", "sep_conv_3x3(x)", "-times", "b:0.9"], ["|97", "sep_conv_5x5(x)", "-times", "b:0.2"],
        ["|97", "skip_connect(x)", "-times", "b:0.1", ">added up", "k:node j"], ["|97", "-and four more"],
    ]),
    "ssl_losses": ("Two views of an image go through one network; the loss asks that both say the same", [
        ["k:image", ">view 1", "network", ">", "b:embedding 1", ">", "g:correlated, dimension by dimension:\nsame dimension 1, any other 0"],
        ["k:image", ">view 2", "the same", ">", "b:embedding 2", ">", "-Barlow Twins; SimCLR and VICReg say it otherwise"],
    ]),
    "augment": ("A whole batch becomes two views of every image in one pass", [
        ["k:batch, bytes\n(N, C, H, W)", ">", "b:one affine map\ncrop, rotation, flip", ">", "b:one colour matrix\nand one shift", ">",
         "g:two views\nof every image"],
        ["-N draws of their own, all from one generator of (seed, stage, epoch, step)"],
    ]),
    "class_losses": ("Class counts make the loss: offsets on logits, weights, margins or less for what is easy", [
        ["k:class counts\n4,500 ... 45", ">", "b:offsets on the logits\nbalanced softmax, logit adjustment", "b:weights\nclass-balanced"],
        ["|174", "b:margins\nLDAM", "b:less for easy answers\nfocal, asymmetric", ">", "g:loss(logits, targets)"],
    ]),
    "metrics": ("Recall of every class first, then means in which every class counts the same", [
        ["=0.95 class 0: 950 of 1,000 found"], ["=0.2 o:class 1: 2 of 10 found"],
        ["-accuracy 94.3 %: spoiled by the large class", ">", "g:balanced accuracy 57.5 %"],
    ]),
    "loop": ("A step's randomness comes from its place; a killed training goes on from its checkpoint with the same bits", [
        ["step 1", ">", "step 2", ">", "b:checkpoint", ">", "step 3", ">", "o:killed"],
        ["|195", "b:checkpoint", ">", "step 3", ">", "step 4", ">", "g:the same bits as without the kill"],
    ]),
    "baselines": ("Five kinds of controls for a searched network", [
        ["g:searched\n0.41 M, searched", "-against", "k:ResNet-18\n11.2 M", "k:narrowed ResNet\n0.41 M, by hand", "k:MobileNetV3-small\n1.5 M",
         "k:by hand,\nof equal MACs",         "o:random genotypes\n0.41 M, not searched"],
        ["-what it gains over the last is what the search is worth"],
    ]),
    "derive": ("Two rules: the best two edges of a node, or every edge above a threshold", [
        ["-weights into node 3", "=0.9 b:0.9"], ["|145", "=0.88 b:0.88"], ["|145", "=0.3 k:0.3"],
        ["b:top2: always two", "g:threshold 0.85: what is above, two at most, perhaps one"],
    ]),
    "markdown": ("report.json becomes a report: verdict first, then tables and a picture", [
        ["k:report.json", ">", "g:what was shown,\nin one paragraph", ">", "b:tables: models, differences,\nclass by class", ">", "b:picture", ">", "report.md"],
    ]),
    "imbalance": ("Balanced classes are cut to a long tail by a formula", [
        ["=1 n"], ["=0.46 n / 2.2"], ["=0.21 n / 4.6"], ["=0.1 o:n / 10, for an imbalance factor of 10"],
        ["-which images stay, and in which split, depends on the labels and the seed alone"],
    ]),
    "images": ("Every file becomes an array of bytes, or is set aside with its reason", [
        ["k:png, jpeg, tiff,\n16 bits, CMYK, rotated ...", ">", "b:one way\nto open it", ">", "g:uint8 (C, H, W)"],
        ["|190", "-truncated, empty, a bomb, a copy", ">", "o:set aside, counted, listed"],
    ]),
    "relaxations": ("A row of alphas becomes a row of weights, in one of several ways", [
        ["k:alphas of an edge\n0.3  -1.2  2.0 ...", ">", "b:fair: a sigmoid each", "b:darts: one softmax", "b:partial", "b:path", "b:gumbel", "b:sampled"],
        ["-how they learn, what a step computes, and how the finished table is read", ">", "g:weights"],
    ]),
    "monitor": ("Figures of every epoch go to rules that may stop the search, and to one picture", [
        ["k:an epoch ends", ">", "b:rank of the embeddings\nedges without parameters\nshare that is decided", ">", "o:rules: collapsed? decided?\ndiverged?", ">",
         "stop, go back,\nor go on"],
        ["|127", "-and", ">", "g:one picture, replaced in place"],
    ]),
    "samplers": ("Natural, square-root and class-balanced samples of the same classes", [
        ["-natural", "|28", "=0.8 80 of 100", "=0.2 o:20"], ["-square root", "|1", "=0.67 67", "=0.33 o:33"], ["-balanced", "|21", "=0.5 50", "=0.5 o:50: rare images come again"],
    ]),
    "cells": ("Genotypes and weights become SVG that redraws itself as a slider moves", [
        ["k:genotype", ">lanes, so that no name\ncovers another", "b:graph as SVG"], ["k:weights 14 x 7", ">", "b:heat map as SVG", "|40", "g:in milliseconds, on white or black"],
    ]),
    "style": ("Colours are chosen by how far apart everyone sees them", [
        ["b:max_pool", "o:dil_conv_3x3", "g:dil_conv_5x5", "r:avg_pool", "y:sep_conv", "k:skip_connect"],
        ["-told apart by people who cannot tell red from green, on white and on black: measured, not hoped"],
    ]),
    "download": ("A download that breaks off goes on where it was; it counts when it is whole", [
        ["k:web or Drive", ">", "o:file.part\n40 %, then the line breaks", ">asks for the rest", "b:file.part\n100 %", ">checksum", "g:file"],
        ["-offline: what to fetch by hand, and where to put it"],
    ]),
    "tables": ("A table of names and labels, its columns guessed where that is certain", [
        ["k:image, finding, patient\n0001.png, Effusion, 17\n0002.png, Mass|Nodule, 17", ">", "b:name: first column of files\nlabels: one, several, or a list\ngroup: patients stay together",
         ">", "g:images with labels,\nno patient in two splits"],
    ]),
    "memmap": ("Arrays in memory while they fit, else in one file that is read in pieces", [
        ["k:images", ">fits", "b:memory", "|20", "k:images", ">too large", "b:a file beside the run,\nmade once", ">mapped", "g:the pages that\na batch needs"],
    ]),
    "npz": ("Arrays of any usual layout become (N, C, H, W) bytes and labels", [
        ["k:.npz, MedMNIST,\nCIFAR's batches", ">no pickles", "b:layout and range\nare recognised", ">", "g:uint8 (N, C, H, W)\nlabels (N,) or (N, L)"],
    ]),
    "folders": ("Folders and zips: a folder a class, or no class at all", [
        ["k:cat/ 01.jpg 02.jpg\ndog/ 01.jpg", ">", "g:classes cat, dog"], ["k:01.jpg 02.jpg", ">", "b:no labels: search only"],
        ["k:../../etc/passwd, links", ">", "o:refused"],
    ]),
    "summary": ("What the images are, at a glance", [
        ["k:images", ">", "b:counts by class,\nlogarithmic", "b:examples,\nrarest first", "b:two views\nof some", "o:what was\nset aside"],
    ]),
    "bilevel": ("Half of the images trains weights, the other half alphas, in turns", [
        ["k:half A", ">", "b:a step of the weights", "-then", "k:half B", ">", "g:a step of the alphas", ">", "-and again"],
        ["-no image teaches both: an operation must help on images that its weights have not seen"],
    ]),
    "cost": ("A few steps tell what a search will take in time and memory", [
        ["k:two small batches", ">bytes kept", "b:memory for each image", ">", "g:does a batch fit, in how many parts?"],
        ["k:a few steps", ">seconds", "b:time of a step", ">", "g:2 h 10 min in all"],
    ]),
    "fused_ops": ("Operations that leave a node are computed together where they can be", [
        ["k:node i", ">", "b:one wide convolution\nfor all edges that begin here", ">cut", "to node 3", "to node 4", "to node 5"],
        ["-the same numbers as edge by edge, in fewer and larger pieces of work"],
    ]),
    "lock": ("One session holds the lock and beats; another is refused until the beats stop", [
        ["b:session A", ">beat", "b:beat", ">beat", "b:beat", ">", "o:silence"], ["k:session B", ">", "o:refused: A writes, 3 s ago", "|20", "k:session B", ">", "g:may write"],
        ["-reading is always allowed"],
    ]),
    "publisher": ("Work on the local disk, published to Drive in the background, always whole there", [
        ["b:training writes\non the local disk", ">in order,\nin the background", "k:Google Drive", ">a new machine\nreads", "g:the last whole state"],
        ["-Drive away or slow: training goes on, says so once, publishes when it is back"],
    ]),
    "predict": ("A finished run answers for new images", [
        ["k:a run\nor its export", ">load_model", "b:network, class names,\npreprocessing", ">predict", "g:cat 0.93\ndog 0.07"],
        ["-or a folder of images into a CSV: ssnas predict RUN FOLDER --out answers.csv"],
    ]),
    "export": ("One archive that works without the run folder, and ONNX", [
        ["k:run", ">", "b:out.zip: genotype.json, safetensors,\nreport, pictures, class names", ">", "g:elsewhere, without the run"],
        ["k:run", ">", "b:out.onnx", ">onnxruntime equals torch to 1e-4", "g:elsewhere, without torch"],
    ]),
    "gradcam": ("Which places of an image speak for the answer", [
        ["k:image", ">", "network up to\nthe last features", ">weighed by\ntheir gradients", "b:map of places", ">laid over", "g:image"],
    ]),
    "html": ("One HTML file that needs nothing else", [
        ["k:report.json\nand pictures", ">", "b:report.html\ntext, tables, pictures in one file", ">", "g:opens anywhere:\nno script, no font, no net"],
    ]),
    "compare": ("Seeds become one report, runs one table", [
        ["k:seed 0", "k:seed 1", "k:seed 2", ">aggregate", "b:mean ± deviation"], ["k:run A", "k:run B", ">compare", "b:one table", "-and what differs in their settings"],
    ]),
    "ranks": ("Each rank has its share of a batch; the loss sees all of it; one writes", [
        ["k:batch", ">its share", "b:rank 0: views, network", ">embeddings\nof all", "b:loss of the whole batch,\ngradient of its own rows", ">mean of\nthe gradients", "g:the same step"],
        ["k:batch", ">its share", "o:rank 1: views, network", ">embeddings\nof all", "o:loss of the whole batch,\ngradient of its own rows", ">mean of\nthe gradients", "g:the same step"],
        ["-clock, signals and disk: asked by one, told to all at the same step; rank 0 alone writes and speaks"],
    ]),
    "interrupts": ("A budget, Stop or SIGTERM ends a training between two steps", [
        ["step", ">", "step", ">", "o:time is nearly up,\nStop, SIGTERM", ">", "b:checkpoint", ">", "g:exit code 75:\nthe same command goes on"],
    ]),
    "files": ("Written beside, flushed, read back, renamed; a kill leaves the old or the new file", [
        ["b:name.partial", ">flush", "on the disk", ">read back", "checksum right?", ">rename", "g:name"],
        ["-a kill before the rename: the old file is there; after it: the new one; never half of one"],
    ]),
    "device": ("Device, precision and layout are chosen once", [
        ["k:auto", ">", "b:cpu: float32, or bfloat16 if asked", "b:cuda: half precision with a scaler, channels last", ">", "g:engine.place(net)"],
    ]),
    "recipes": ("From a network to a classifier: without labels first, then with", [
        ["k:network", ">Barlow Twins", "b:features", ">all weights", "g:pretrain+finetune"], ["|115", "-or the last layer alone:", "g:linear probe", "g:kNN", "g:cRT", "|16", "k:scratch: no first step"],
    ]),
    "remote": ("Contents first, the index last, in turns into two places", [
        ["b:contents", ">verified", "k:Drive", "|16", "b:index 7", ">last of all", "k:published.1.json", "-beside", "k:published.0.json: index 6"],
        ["-whatever breaks in between, one of the two indexes names a whole state"],
    ]),
    "session": ("One context for lock, Drive and time budget", [
        ["b:lock", "b:copy on Drive", "b:time budget", ">with session(path):", "g:a run that cannot be lost"],
    ]),
    "forecast": ("Finished parts count as measured, the open one by its pace, waiting ones as estimated", [
        ["g:search\n2 min 30 s taken", ">", "b:pretraining, half done\n30 s, so 30 s more", ">", "k:waiting\n10 min estimated,\ntimes the pace of its kind"],
        ["-known before the first step, and better with every one"],
    ]),
    "verdict": ("Where the interval lies decides the word", [
        ["-interval", "g:[+1, +5]", ">", "g:✓ better"], ["-interval", "k:[-2, +4]", ">", "k:– cannot be told apart"], ["-interval", "o:[-6, -1]", ">", "o:✗ worse"],
    ]),
    "figures": ("Four questions, four pictures", [
        ["k:report.json", ">", "b:better at its size?", "b:for whom?", "b:taken for what?", "b:trained long enough?"],
    ]),
    "form_controls": ("Controls with names, sentences that are read out, pictures that can be chosen", [
        ["k:list, slider, button\nby keyboard", ">", "b:Board.draw()", ">", "g:picture", "g:sentence,\nread out"],
        ["-a click on a picture does what a list does too"],
    ]),
    "svg": ("Class counts, recalls and confusions drawn as text", [
        ["k:numbers", ">", "b:SVG or HTML,\nmade of text", ">", "g:follows a dark page", "g:reached by keyboard", "g:redrawn in milliseconds"],
    ]),
    "explorer_model": ("The explorer's state, without any widget", [
        ["k:run or genotype", ">", "b:which epoch, threshold,\nedge, comparison", ">", "g:pictures", "g:sentences", "g:files to save"],
    ]),
    "search": ("Half of the images trains weights, half alphas; no label is read", [
        ["k:images,\nno labels", ">half A", "b:weights of all operations", "|16", "k:images,\nno labels", ">half B", "b:alphas: which of them", ">", "g:genotype"],
        ["-one at a time: a genotype is drawn, learns for a step, and is compared with others on the other half"],
    ]),
    "pipeline": ("All four stages in one call", [
        ["k:images", ">", "b:1 load", ">", "b:2 search", ">", "b:3 derive", ">", "b:4 evaluate", ">", "g:report"],
        ["-each reads what the one before left in the run folder; run again, it goes on where it stopped"],
    ]),
    "cli": ("What the command does", [
        ["b:ssnas run", "b:data", "b:search", "b:derive", "b:evaluate", "b:sweep", "|16", "k:status", "k:show", "k:compare", "|16", "g:test", "g:predict", "g:export", "g:push"],
        ["-make a run", "|354", "-look at it", "|126", "-use it"],
    ]),
    "first_runs": ("Two first runs, one seed each", [
        ["k:PneumoniaMNIST, 9 to 1", "k:CIFAR-10, factor 100", ">ssnas run", "b:report of each", ">", "o:no better than random genotypes: why?"],
    ]),
    "better_than_chance": ("Searched genotypes against random ones, all else alike", [
        ["b:searched", "o:random", "k:ResNet of the size", ">same budget, recipe, steps;\nseveral seeds", "g:is the difference more than luck?"],
    ]),
    "even_clusters": ("Searches with and without even clusters, then the same probe", [
        ["b:plain sampling", "o:even clusters", ">search, 3 seeds", "genotypes, features", ">", "g:linear probe, fine-tuning"],
    ]),
    "every_search": ("Every relaxation with every objective, once", [
        ["b:sampled, fair, darts, partial, path, gumbel", "-times", "b:barlow_twins, simclr, vicreg, supervised", ">", "g:each ends in a genotype"],
    ]),
    "does_it_hold": ("The searched network against five kinds of controls, three seeds", [
        ["g:searched", "-against", "k:ResNet-18", "k:narrowed ResNet", "k:MobileNetV3-small", "o:random genotypes", "b:published genotypes"],
        ["-long-tailed CIFAR-10, PneumoniaMNIST 9 : 1, and a smoke run of the COVID-19 path"],
    ]),
    "walk": ("Three paths through the package: the images, a setting, a genotype", [
        ["-images"],
        ["k:folder,\nzip, npz", ">load_data", "b:stages.loader\ndata.folders, .images,\n.imbalance", ">ImageData", "b:stages.search\nnas.bilevel,\n.supernet", ">alphas",
         "o:the run\nfolder", ">", "b:stages.evaluation\ntraining.recipes,\n.loop", ">scores", "g:reports.build\n.pages"],
        ["-a setting"],
        ["k:ssnas run --set\nsearch.lambda_=0.01", ">", "b:cli", ">checked", "b:config\nSearchConfig", ">run.json", "o:experiment.run", ">search_config",
         "b:stages.search\nnas.bilevel", ">make_loss", "g:training.ssl_losses\nbarlow_twins_loss"],
        ["-a genotype"],
        ["b:nas.relaxations\nweights of operations", ">", "b:nas.derive\nstages.derivation", ">genotype.json", "o:the run folder", ">", "b:models.network\ntrained", ">",
         "b:inference.model\nwith its pixels", ">", "g:inference.export\nnetwork.onnx"],
    ]),
    "policy": ("Alphas as a distribution over genotypes, moved towards what scores better", [
        ["b:alphas: how likely\neach choice is", ">draw four", "genotypes", ">one batch", "scores", ">better than the mean:\nmore likely", "g:alphas"],
        ["-the score function: no gradient passes through the network"],
    ]),
    "beats": ("Alive is who has beaten within the time that we watched, by our own clock", [
        ["k:lock: beat 41", ">we wait", "k:lock: beat 42", ">", "g:alive"], ["k:lock: beat 41", ">we wait longer", "k:lock: beat 41", ">", "o:dead"],
        ["-no clock of another machine is believed"],
    ]),
    "restoring": ("What was published last and is whole comes to an empty disk; what was made here is kept aside", [
        ["k:Drive: state 7", ">damaged", "o:passed over"], ["k:Drive: state 6", ">whole", "g:local disk", "|20", "-what was made here and never published:", "b:kept beside"],
    ]),
    "config": ("A setting is written down once: everything else that speaks of it is made from there", [
        ["b:one line\nname, type, range,\ndefault, help", ">", "g:the command's options", "g:docstrings", "g:the notebooks' forms"],
        ["|166", ">checked", "o:refused in a sentence\nbefore an image is read"],
    ]),
    "checkpoints": ("A checkpoint carries its own checksum; of two, the newest that is whole counts", [
        ["b:000007.pt\nsha256, state", "b:000008.pt\nsha256, state", "o:000009.pt\ncut short", ">set aside", "g:000008.pt goes on"],
        ["-manifest.json says which there are, how far each came and what it cost"],
    ]),
    "colab": ("What a notebook in Colab is told, and where its run lies", [
        ["k:badge", ">", "the form\nDATA, PRESET, ...", ">", "b:the run\non this machine", ">in the background", "g:Google Drive"],
        ["-a mistake is one sentence in a box, with a link to the notebook that mends it"],
    ]),
    "operations": ("Seven operations, each from a map of features to one of the same width", [
        ["k:max_pool_3x3", "k:avg_pool_3x3", "k:skip_connect", "b:sep_conv_3x3", "b:sep_conv_5x5", "g:dil_conv_3x3", "g:dil_conv_5x5"],
        ["-with stride 2 each of them halves the map: an odd width is rounded up, and no pixel is lost"],
    ]),
    "build": ("What a report says is made once, and laid out twice", [
        ["k:models/*.json\nof every seed", ">", "o:report.json", ">report_view", "b:verdict, tables,\nsentences", ">", "g:report.md"],
        ["|430", ">", "g:report.html", "g:boards"],
    ]),
    "seeding": ("A step's random numbers follow from its place, not from the numbers before", [
        ["k:seed 3", "k:search", "k:epoch 2", "k:step 7", "k:views", ">SHA-256", "b:a generator of its own", ">", "g:the same numbers in any session"],
    ]),
    "environment": ("Four questions about where code runs, asked in one place", [
        ["b:in Colab?", "b:in a notebook?", "b:on Drive?", "b:how much memory?", ">", "g:a test can answer for all"],
    ]),
    "basics": ("A mistake becomes one sentence with a way out", [
        ["k:--loss cros_entropy", ">", "b:did_you_mean", ">UserError", "o:the evaluation has no loss 'cros_entropy':\ndid you mean 'cross_entropy'?"],
    ]),
}  # fmt: skip
