# Every text that people read, in English. zh.ftl has the same keys with the same arguments: a test compares them.
# Arguments are finished texts (a quantity with its unit, a name); no grammar depends on their value.

## The page
page-title = What isolation costs on { $host }
page-lead = { $sandboxes } ways to isolate one workload, measured beside each other on this machine, and what that says about things people repeat about containers and virtual machines.
page-contents = Contents
page-emulated = This whole machine is emulated. Compare its figures with each other only, never with those of real hardware.
page-footer = Made by { $program } from run.json and samples.jsonl alone: the same records give the same page, byte for byte.
fact-started = Began
fact-samples = Samples
fact-samples-value = used: { $used }, warm-ups: { $warm-ups }, errors: { $errors }

## Sections
section-verdicts = What holds here
section-machine = Machine and method
section-charts = Figures
section-modes = Which network mode, and when
section-unavailable = What could not be measured here
section-errors = What failed
section-untested = Claims not tested
section-published = What was published

## Verdicts
verdicts-lead = Each is a hypothesis taken from course notes. Its rule was fixed before any data. A difference counts only where its whole 95 % interval lies beyond the margin, and equality only where the whole interval lies within it; anything else is inconclusive.
verdicts-none = No claim could be answered from these records.
answer-confirmed = confirmed
answer-refuted = refuted
answer-inconclusive = inconclusive
answer-not-measurable = not measurable here
answer-not-tested = not tested
answer-shown-by-construction = shown by construction
answer-split = partly true
kind-choice = choice of the runtime
kind-choice-text = A behaviour that a runtime chooses. Only other runtimes can confirm it; from our own it is shown by construction.
kind-consequence = consequence of the mechanism
kind-consequence-text = Follows from how the kernel works. A probe decides, beside its control.
kind-figure = figure
kind-figure-text = A measurement decides, by a margin fixed beforehand.
verdict-rule = Rule: { $rule }
verdict-count = { $answer }: { $count }
figure-name = Figure
figure-estimate = Estimate
figure-interval = Interval
figure-n = n

## Machine and method
machine-host = Host
machine-cpu = CPU
machine-cpus = { $cpu }, { $count } online
machine-memory = Memory
machine-kernel = Kernel
machine-cgroups = Control groups
machine-kvm = KVM
machine-privilege = Run by
machine-root = root
machine-rootless = an ordinary user, in a user namespace
machine-program = Program
machine-command = Command line
machine-plan = Plan
machine-plan-value = suite { $suite }, seed { $seed }, blocks: { $blocks }
machine-own-program = Measured program
method-title = How it was measured
method-network = The simulated host, its bridges and an outside client live in network namespaces of the run's own. No physical network card took part, and the machine's own links and firewall were not touched.
method-blocks = Every sandbox is measured once in each randomised block, so that drift of the machine hits all alike. One launch in one block is the unit of replication.
method-interval = Shown are all samples, with the median and its 95 % interval from resampled blocks; below six blocks no interval is given.
method-ready = Ready means the first TCP answer where there is a network, else one line on the standard output. Time starts just before the process is created.
method-closed = The latency load is a closed loop: one request at a time, the next after the answer.
method-kept = Warm-ups are kept and marked, failures are never counted as zero, and nothing is dropped as an outlier.
sandboxes-title = Sandboxes
sandbox-name = Sandbox
sandbox-family = Family
sandbox-version = Version
sandbox-emulation = Emulated by
family-process = process
family-container = our container
family-unikernel = our microVM with a unikernel guest
family-linux = our microVM with a Linux guest
family-peer = other project's program
unavailable-lead = These were planned and left out, with the reason that the program found.
unavailable-reason = Reason
errors-lead = Samples that ended in an error. They are not part of any figure.
errors-count = Errors
errors-metric = Metric
errors-first = First error
untested-lead = No experiment of this run bears on them.

## Sandboxes in a sentence
sandbox-process = a bare process
sandbox-unikernel-process = the unikernel's code as a process
sandbox-container-host = host mode
sandbox-container-container = container mode
sandbox-container-none = none mode
sandbox-container-bridge = bridge mode
sandbox-container-custom = a custom network
sandbox-vm-unikernel = the unikernel VM
sandbox-vm-linux = the Linux VM

## Charts
chart-data = Data as a table
chart-stages-key = Stages:
chart-key-median = median and 95 % interval
chart-key-hatched = hatched or dashed: emulated
chart-alone-startup = { $first } is ready after { $time }
chart-alone-memory = Each instance of { $first } takes { $slope }
chart-alone-throughput = { $first } reaches { $rate } in { $direction }
chart-alone-latency = A round trip to { $first } takes { $time }
chart-startup-title = { $first } is ready after { $first-time }, { $ratio } times as long as { $second } ({ $second-time })
chart-startup-same = No difference shown in time to ready between { $first } and { $second } ({ $first-time } against { $second-time })
chart-memory-title = Each instance of { $first } takes { $first-slope }, of { $second } { $second-slope }
chart-throughput-title = { $first } reaches { $ratio } times the { $direction } of { $second } ({ $first-rate } against { $second-rate })
chart-throughput-same = No difference shown in { $direction } between { $first } and { $second } ({ $first-rate } against { $second-rate })
chart-latency-title-more = { $first } adds { $difference } to a round trip of { $second } ({ $second-time })
chart-latency-title-less = { $first } takes { $difference } off a round trip of { $second } ({ $second-time })
chart-latency-same = No difference shown in round trips between { $first } and { $second } ({ $first-time } against { $second-time })
chart-startup-axis = Time since the process was created
chart-startup-section = From t0 to ready, by stage
chart-memory-axis-x = Idle instances
chart-memory-axis-y = Host memory beyond that with no instance
chart-memory-section = Host memory over the number of idle instances
chart-memory-each = { $slope } each
chart-throughput-axis = TCP throughput, one stream
chart-throughput-section = TCP throughput, { $path }
chart-latency-axis = Round-trip time, logarithmic
chart-latency-section = TCP round trip in a closed loop, { $path }
chart-latency-note = The unikernel and the monitor of a virtual machine go on looking for the next packet for 50 µs before they sleep, so that they need not be woken for it. Their short round trips are paid for with a CPU that is busy all the while; processes and containers sleep and are woken.
chart-group-upload = Upload (towards the sandbox)
chart-group-download = Download
chart-segmentation-offload = segmentation offload
chart-segmentation-wire = wire-size packets
path-host = from the simulated host
path-client = from an outside client
path-loopback = over loopback
stage-created = create process
stage-vmm-entered = start VMM
stage-vmm-ready = set up VM
stage-guest-entered = enter guest
stage-agent-entered = start agent
stage-listening = listen
stage-announced = announce
stage-answered = first answer
column-sandbox = Sandbox
column-stages = Stages (median)
column-median = Median
column-interval = 95 % interval
column-lowest = Lowest
column-highest = Highest
column-n = n
column-slope = Per instance
column-at-instances = at { $count }
column-direction = Direction
column-segmentation = Segmentation
column-percentile = { $percent } %
column-requests = Requests
value-interval = { $low } to { $high }

## Network modes
modes-lead = When one would choose each of the five, with what was measured here; in brackets what one would have instead.
mode-host-title = host
mode-host-when = For a server with few, fixed ports that wants the host's full speed, and for tools that must see the host's own network. Every container then shares one port space and one loopback, and nothing counts or filters its traffic apart.
mode-container-title = container
mode-container-when = For a pair that talks a lot and belongs together: a server and its proxy, a program and its collector of metrics. They share address, ports and loopback, and live and die with the one that owns the network.
mode-none-title = none
mode-none-when = For batch work that needs no network and should not have one, and as the empty start for wiring by hand.
mode-bridge-title = bridge
mode-bridge-when = The default on one host: an address of its own, the way out through source NAT, the way in only through a published port. It costs a bridge and an address translation on each packet.
mode-custom-title = custom
mode-custom-when = For several applications apart on one host: each network has its own subnet and gateway, members find each other by name, and different networks do not meet.
mode-figures = Measured here
mode-figures-none = No figure of this run bears on it.
mode-beside = { $value } ({ $reference }: { $other })
mode-connection-client = New connection from outside
mode-ready = Ready after
mode-upload-host = Upload from the host
mode-upload-client = Upload from outside
mode-round-trip-host = Round trip from the host
mode-round-trip-client = Round trip from outside
mode-memory = Memory of one more
mode-upload-loopback = Upload over loopback
mode-loopback = Round trip over loopback

## Terminal
table-sandbox = sandbox
table-ready = ready
table-memory = memory each
table-upload = upload
table-round-trip = round trip
table-unavailable = not measurable here: { $reason }
table-legend = Medians; upload and round trip from the simulated host, with segmentation offload.

## Markdown
markdown-claim = Claim
markdown-answer = Answer

## Short words for a chart's key
key-process = process
key-container = container
key-unikernel = unikernel
key-linux = Linux VM
key-peer = other program
chart-beyond = { $count } beyond, up to { $highest }

## Rules
rule-facts = Each of these is seen in every block, and its control comes out as it must.
rule-ratio = Compared within blocks; everything listed must lie on the stated side of its margin with its whole interval.
rule-threshold = The whole interval of each must lie on the stated side of its limit.
figure-expected = The claim says
figure-seen = Seen
figure-answer = Answer
figure-compared = { $sandbox } / { $against }
figure-medians = { $first } against { $second }
figure-probe = Probe
figure-is-control = control
controls-hold = Control holds: { $sandboxes }
controls-broken = Control does not hold: { $sandboxes }
control-holds = control holds
control-broken = control broken
control-open = control open
figure-blocks = n (blocks)
expect-worse = worse by more than { $percent } %
expect-better = better by more than { $percent } %
expect-equal = equal within { $percent } %
expect-below = below { $limit }
expect-at-least = { $limit } or more
expected-contains = contains { $text }
expected-excludes = nothing contains { $text }
expected-within = within { $text }
expected-same-as = same as: { $metric }
expected-differs-from = other than: { $metric }
value-yes = yes
value-no = no
value-nothing = nothing
verdict-emulation = emulated: { $emulation }
interval-level = { $level } %: { $interval }

## Reasons
reason-no-experiment = There is no experiment for it yet.
reason-not-in-run = This run did not include { $name }.
reason-unavailable = { $sandbox } cannot run here: { $why }.
reason-emulated = { $sandbox } is emulated here ({ $emulation }), so its figures cannot decide.
reason-control-broken = The control { $metric } of { $sandbox } did not come out as it must, so the probe is not to be trusted.
reason-no-samples = There is no usable sample of { $metric } of { $sandbox }.
reason-too-few-blocks = { $blocks } complete blocks are too few for an interval: { $needed } are needed.
reason-contradictory = Blocks contradict each other on { $metric } of { $sandbox }.
reason-undecided = An interval reaches across its margin.
reason-own-runtime-only = Our own runtime was written to do this; no other runtime took part that could decide.

## Metrics
metric-start-stages = stages of the start
metric-start-ready = time to ready
metric-start-gone = time to gone
metric-memory-host = host memory
metric-memory-pss = proportional set size
metric-memory-cgroup = memory of the control group
metric-memory-engine = engine's own processes
metric-memory-vmm-overhead = VMM beyond guest memory
metric-tcp-upload = upload
metric-tcp-download = download
metric-tcp-round-trip = round trips
metric-tcp-round-trip-median = median round trip
metric-tcp-connection = connections
metric-tcp-connection-median = median connection
metric-network-interfaces = interfaces
metric-network-addresses = addresses
metric-network-routes = routes
metric-network-host-interfaces = the host's interfaces
metric-network-host-addresses = the host's addresses
metric-network-namespace-is-host = network namespace is the host's
metric-network-connects = connects
metric-network-port-conflict = port already taken
metric-network-source-address = source address seen outside
metric-network-default-mode = mode when none is given
metric-network-range = subnet
metric-network-publish = published port is reachable
metric-cell-duration = duration of a cell
metric-machine-steal = CPU time stolen by a hypervisor
metric-cell-leak = left behind after a cell
metric-network-has-address = has the address
metric-network-links = kinds of links
metric-visibility-listener = listener is seen
metric-visibility-loopback = answers by 127.0.0.1
metric-accounting-counted = traffic to one container is counted
metric-publishing-answer = request to publish a port
metric-publishing-reached = is reached
metric-publishing-refused = second container is refused the port
metric-publishing-left-behind = left behind by a refused container
metric-views-seen = is seen from inside
metric-views-namespace-is-host = namespace is the host's
metric-attachment-interfaces = interfaces after a card was added
metric-attachment-connects = reaches the outside
metric-hosts-connects = reaches a container on another host
metric-separation-connects = connects
metric-names-resolves = name is answered
metric-names-connects = is reached by name
target-outside = to the outside
target-gateway = to the gateway

## Lists
list-comma = { ", " }
markdown-id = Id
markdown-details = Figures
markdown-figure = { $name } ({ $subject }): { $estimate } ({ $interval }, n = { $n })
chart-scale = scale to { $highest }

## Published results
published-summary = Published: { $counts }
published-note = As published, in the publication's own units: other machines, versions and clocks. No figure or verdict of this run uses them.
published-confirms = confirms
published-refutes = refutes
published-mixed = mixed
grade-peer-reviewed = peer-reviewed
grade-preprint = preprint
grade-project = by the project or vendor
grade-grey = grey literature
read-full-text = full text read
read-data-set = authors' data read, not the article
read-excerpt = excerpt read
read-abstract = abstract read

## Parameters of probes
parameter-of-named = of the named container
parameter-of-host = of the host
parameter-with-named = with the named container
parameter-with-host = with the host
parameter-from-host = from the host
parameter-from-own = from the container's own network
parameter-from-other = from another container
parameter-at-own = at that container
parameter-at-other = at the other container
parameter-way-unpublished = from outside by the host's port, nothing published
parameter-way-routed = from outside by the container's address, with a route
parameter-way-gateway = from outside by the bridge's address, with a route
parameter-way-from-host = from the host by the container's address
parameter-way-own-port = from outside by its own port
parameter-way-published = from outside by the published port
parameter-port-taken = taken by another container
parameter-port-other = free
parameter-port-freed = freed by the end of the other
parameter-what-host-file = a file of the host
parameter-what-host-process = a process of the host
parameter-what-neighbour-process = a process of a neighbour
parameter-what-own-process = its own process
parameter-kind-mnt = mount
parameter-kind-pid = process
parameter-when-before = before a card is added
parameter-when-after = after a card was added
parameter-ranges-equal = equal private ranges
parameter-ranges-own-host = from that host itself
parameter-ranges-routed = other ranges, with routes
parameter-to-neighbour = to a neighbour in the same network
parameter-to-neighbour-there = within the other network
parameter-to-other-network = to another network
parameter-to-this-network = from the other network
parameter-name-same = in the same network
parameter-name-other = of another network
parameter-name-other-there = of another network, asked there
parameter-name-address = by its address
parameter-name-default = on the default bridge

## What the program says in fixed sentences: the English text is the one in the records
remark-no-docker-daemon = dockerd, the daemon behind docker, is not installed: apt-get install docker.io
remark-not-installed = { $program } is not installed: apt-get install { $package }
remark-no-control-groups = { $program } makes control groups, which this user may not: run isobench as root
remark-no-guest-kernel = there is no guest kernel: get one by `scripts/guest-kernel`, or give --kernel FILE
remark-kvm-full = KVM runs every guest at full speed
remark-kvm-emulated = KVM is emulated here (the processor shows no VT-x or AMD-V): kernel code of a guest runs { $factor } times slower than its user code, so the unikernel runs at full speed and a Linux guest does not run
remark-kvm-held-back = KVM is emulated here (although the processor has VT-x or AMD-V): kernel code of a guest runs { $factor } times slower than its user code, so the unikernel runs at full speed and a Linux guest does not run
remark-no-kvm = there is no /dev/kvm and the processor shows no VT-x or AMD-V: switch it on in the firmware, or nested virtualisation in the hypervisor, to run a virtual machine of ours
remark-no-kvm-module = there is no /dev/kvm, so no virtual machine of ours can run: `{ $command }`
remark-kvm-forbidden = /dev/kvm is not for you: `{ $command }`
remark-software-kvm = software KVM
remark-emulated-machine = emulated machine
remark-port-published = published
remark-port-ignored = ignored
remark-port-refused = refused: publishing a port is not supported: a container without an address of its own has no port to which one of the host's could lead
remark-not-measured = it was not measured
