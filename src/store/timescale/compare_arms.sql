-- The arms that ran between $1 and $2 (at $3, when not null), each with those that it divided the ticks with.
select distinct arm, coalesce(arms, '{}')
from agents
where started < $2 and (ended is null or ended > $1) and ($3::text is null or location = $3)
order by 1, 2
